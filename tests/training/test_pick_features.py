"""The search finds what tells the classes apart."""

import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.image_model import ImageDiffusion
from medsegdiff.networks.image_denoiser import ImageDenoiser
from medsegdiff.training.few_labels import DrawnVoxels
from medsegdiff.training.pick_features import (
    RIDGE,
    ScoredPick,
    chosen_picks,
    explained,
    scored_picks,
)
from medsegdiff.voxel_features import Pick


def voxels(seed: int, count: int = 400) -> DrawnVoxels:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 6, generator=generator)
    noise = torch.randn(count, generator=generator)
    return DrawnVoxels(features, (2.0 * features[:, 0] + noise > 0).long() + (noise > 1).long())


def test_the_score_is_that_of_a_ridge_regression() -> None:
    known, others = voxels(0), voxels(1)
    mean, deviation = known.features.mean(dim=0), known.features.std(dim=0)
    seen, unseen = ((v.features - mean) / deviation for v in (known, others))
    one_hot = [torch.nn.functional.one_hot(v.classes, 3).float() for v in (known, others)]
    ridge = Ridge(alpha=RIDGE * len(seen)).fit(seen.numpy(), one_hot[0].numpy())
    wanted = r2_score(one_hot[1].numpy(), ridge.predict(unseen.numpy()))
    assert explained(known, others, 3) == pytest.approx(wanted, abs=2e-3)


def test_features_without_meaning_explain_nothing() -> None:
    known, others = voxels(0), voxels(1)
    random = DrawnVoxels(torch.randn(400, 6), known.classes)
    assert explained(random, others, 3) < 0.05 < explained(known, others, 3)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (8, 8, 8)], ids=["2d", "3d"])
def test_every_pair_gets_a_score(size: tuple[int, ...], count: int) -> None:
    torch.manual_seed(0)
    denoiser = ImageDenoiser(len(size), 1, 1, (8, 8))
    network = ImageDiffusion(denoiser, GaussianProcess(n_timesteps=100)).eval()
    images = [torch.randn(1, *size) for _ in range(count)]
    items = [(image, (image > 0.5).to(torch.uint8)) for image in images]
    found = scored_picks(network, items, [0.02, 0.9], [0, 1], 2, per_case=200)
    assert {one.pick for one in found} == {Pick(t, k) for t in (0.02, 0.9) for k in (0, 1)}
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert found[0].pick == Pick(0.02, 0)  # fine, and hardly noised: the classes are brightness


def test_each_level_gives_its_best_first() -> None:
    scored = [
        ScoredPick(score, Pick(noise, level))
        for score, noise, level in ((0.9, 0.1, 2), (0.8, 0.2, 2), (0.7, 0.3, 1), (0.1, 0.4, 0))
    ]
    assert chosen_picks(scored, 3) == [Pick(0.1, 2), Pick(0.3, 1), Pick(0.4, 0)]
    assert chosen_picks(scored, 4)[3] == Pick(0.2, 2)
