"""The search finds what tells the classes apart."""

import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.few_label.fit_perceptrons import DrawnVoxels
from medsegdiff.few_label.location_search import (
    RIDGE,
    ScoredLocation,
    _moments,
    explained,
    search_locations,
)
from medsegdiff.few_label.voxel_features import FeatureLocation
from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.networks.image_denoiser import ImageDenoiser


def voxels(seed: int, count: int = 400) -> DrawnVoxels:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 6, generator=generator)
    noise = torch.randn(count, generator=generator)
    return DrawnVoxels(features, (2.0 * features[:, 0] + noise > 0).long() + (noise > 1).long())


def test_the_score_is_that_of_a_ridge_regression() -> None:
    known, others = voxels(0), voxels(1)
    learned, judge = (_moments(v, 3) for v in (known, others))
    for columns in ([0, 1, 2, 3, 4, 5, 6], [2, 0, 6]):
        x, z = (
            torch.nn.functional.pad(v.features, (0, 1), value=1.0)[:, columns]
            for v in (known, others)
        )
        y, truth = (torch.nn.functional.one_hot(v.classes, 3).float() for v in (known, others))
        ridge = Ridge(alpha=RIDGE * len(x), fit_intercept=False).fit(x.numpy(), y.numpy())
        wanted = r2_score(truth.numpy(), ridge.predict(z.numpy()))
        assert explained(learned, judge, torch.tensor(columns)) == pytest.approx(wanted, abs=1e-4)


def test_features_without_meaning_explain_nothing() -> None:
    known, others = voxels(0), voxels(1)
    random = DrawnVoxels(torch.randn(400, 6), known.classes)
    columns, judge = torch.arange(7), _moments(others, 3)
    scores = [explained(_moments(some, 3), judge, columns) for some in (random, known)]
    assert scores[0] < 0.05 < scores[1]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (8, 8, 8)], ids=["2d", "3d"])
def test_the_best_comes_first_and_others_add_to_it(size: tuple[int, ...], count: int) -> None:
    torch.manual_seed(0)
    denoiser = ImageDenoiser(len(size), 1, 1, (8, 8))
    network = ImageDiffusion(denoiser, GaussianProcess(n_timesteps=100)).eval()
    images = [torch.randn(1, *size) for _ in range(count)]
    items = [(image, (image > 0.5).to(torch.uint8)) for image in images]

    def search(levels: list[int], locations: int) -> list[ScoredLocation]:
        return search_locations(network, items, [0.02, 0.9], levels, 2, locations, per_case=200)

    found = search([0, 1], 9)
    assert {one.location for one in found} == {
        FeatureLocation(t, k) for t in (0.02, 0.9) for k in (0, 1)
    }
    assert found[0].location == FeatureLocation(
        0.02, 0
    )  # fine, and hardly noised: the classes are brightness
    assert search([0, 1], 2) == found[:2]
    alone = search([1], 1)[0]  # the best of a coarse level by itself
    assert alone.score < found[0].score


def test_a_second_pick_is_one_that_adds() -> None:
    """Two features that say the same, and one that says something else, though less."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 600, generator=generator)
    classes = (a + 0.5 * b > 0).long()
    both = torch.stack([a, a + 0.01 * torch.randn(600, generator=generator), b], dim=1)
    one, other = (_moments(DrawnVoxels(both[n::2], classes[n::2]), 2) for n in (0, 1))
    alone = [explained(one, other, torch.tensor([3, k])) for k in range(3)]
    assert alone[2] < alone[1]
    with_first = [explained(one, other, torch.tensor([3, 0, k])) for k in (1, 2)]
    assert with_first[1] > with_first[0] + 0.05
