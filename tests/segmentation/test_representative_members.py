"""Few members that stand for many: distances against SciPy, choices against trying all."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jaccard
from torch import Tensor

from medsegdiff.metrics.sample_sets import sample_set_metrics
from medsegdiff.segmentation import representative_members as module
from medsegdiff.segmentation.representative_members import jaccard_distances, representatives
from medsegdiff.segmentation.sliding_window import EnsembleInferer
from tests.tiny import tiny_segmenter

SIZES = [(9, 8), (5, 6, 4)]


def annotations(size: tuple[int, ...], count: int, seed: int = 0) -> Tensor:
    """Label maps (count, *size) of three classes: balls of any place and size, some empty."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.stack(torch.meshgrid(*[torch.arange(n) for n in size], indexing="ij")).float()
    found = torch.zeros(count, *size, dtype=torch.uint8)
    for one in found[1:]:
        centre = torch.rand(len(size), generator=generator) * torch.tensor(size)
        away = (grid - centre.view(-1, *[1] * len(size))).norm(dim=0)
        radius = 4.0 * torch.rand((), generator=generator)
        one[away < radius], one[away < radius / 2] = 1, 2
    return found


def energy_distance(distances: Tensor, taken: list[int]) -> float:
    """Between the taken and all, with self-pairs, but for the term of all alone."""
    inner = distances[taken][:, taken].mean()
    return float(2.0 * distances[taken].mean() - inner)


@pytest.mark.parametrize("rows_at_once", [1, 2**20])
@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_distances_are_scipys(
    size: tuple[int, ...], rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VOXELS_AT_ONCE", rows_at_once)
    labels = annotations(size, 6)
    found = jaccard_distances(labels, 3)
    for i, one in enumerate(labels.flatten(1).numpy()):
        for j, other in enumerate(labels.flatten(1).numpy()):
            wanted = np.mean([jaccard(one == k, other == k) for k in (1, 2)])
            assert float(found[i, j]) == pytest.approx(wanted, abs=1e-12)


def test_each_choice_is_the_best_next_one() -> None:
    distances = jaccard_distances(annotations((9, 8), 12), 3)
    for diversity_weight in (0.0, 0.7, 1.0):
        taken = representatives(distances, 5, diversity_weight)
        assert len(set(taken)) == 5
        for n in range(1, 6):
            before, chosen = taken[: n - 1], taken[n - 1]

            def cost(
                new: int, before: list[int] = before, weight: float = diversity_weight
            ) -> float:
                among = distances[[*before, new]][:, [*before, new]]
                return float(2.0 * distances[[*before, new]].mean() - weight * among.mean())

            left = [i for i in range(12) if i not in before]
            assert cost(chosen) == pytest.approx(min(cost(i) for i in left), abs=1e-9)


def test_chosen_stand_for_all_nearly_as_well_as_the_best_few_can() -> None:
    """Between the best of all choices and one at random, it is near the best."""
    distances = jaccard_distances(annotations((9, 8), 14, seed=3), 3)
    every = sorted(energy_distance(distances, list(c)) for c in combinations(range(14), 4))
    found = energy_distance(distances, representatives(distances, 4))
    assert found <= every[len(every) // 50]


def test_diversity_weight_says_how_diverse_they_are() -> None:
    distances = jaccard_distances(annotations((9, 8), 40, seed=1), 3)
    diversity = [
        float(distances[taken][:, taken].mean())
        for taken in (representatives(distances, 10, r) for r in (0.0, 0.6, 1.0))
    ]
    assert diversity[0] < diversity[1] < diversity[2]


def test_more_than_there_are_cannot_be_taken() -> None:
    with pytest.raises(ValueError, match="at most 3"):
        representatives(torch.zeros(3, 3), 4)


def test_chosen_members_are_nearer_to_the_truth_than_as_many_drawn() -> None:
    """Truth and members come from the same distribution: chosen ones have the lower GED^2."""
    truth = annotations((9, 8), 200, seed=5).numpy()
    drawn: list[float] = []
    chosen: list[float] = []
    for seed in range(8):
        pool = annotations((9, 8), 64, seed=100 + seed)
        taken = representatives(jaccard_distances(pool, 3), 8)
        sets = (pool[:8], drawn), (pool[taken], chosen)
        for members, figures in sets:
            found = sample_set_metrics(members.numpy(), truth, [1, 2])["ged2"]
            figures.append(float(np.mean(found)))
    assert np.mean(chosen) < 0.7 * np.mean(drawn)


@pytest.mark.parametrize("size", [(12, 10), (9, 8, 7)], ids=["2d", "3d"])
def test_inferer_keeps_some_of_those_it_draws(size: tuple[int, ...]) -> None:
    network, image = tiny_segmenter(len(size)), torch.randn(1, *size)
    window = [32] * len(size)
    plain = EnsembleInferer(window, members=12, steps=1).ensemble(image, network, "a")
    inferer = EnsembleInferer(window, members=3, oversampling=4, diversity_weight=0.9, steps=1)
    found = inferer.ensemble(image, network, "a")
    wanted = representatives(jaccard_distances(plain.labels, 3), 3, 0.9)
    assert torch.equal(found.labels, plain.labels[wanted])
    torch.testing.assert_close(found.mean, plain.mean)
    torch.testing.assert_close(found.variance, plain.variance)


def test_of_a_volume_taken_slice_by_slice_each_member_stays_one_reading() -> None:
    network, volume = tiny_segmenter(2), torch.randn(1, 12, 10, 3)
    window = [8, 8]
    plain = EnsembleInferer(window, members=8, steps=1).ensemble(volume, network, "a")
    found = EnsembleInferer(window, members=2, oversampling=4, steps=1).ensemble(
        volume, network, "a"
    )
    by_slice = [jaccard_distances(plain.labels[..., z], 3) for z in range(3)]
    wanted = representatives(torch.stack(by_slice).mean(dim=0), 2)
    assert torch.equal(found.labels, plain.labels[wanted])


@pytest.mark.parametrize(
    ("options", "told"),
    [({"oversampling": 0}, "at least 1"), ({"diversity_weight": 1.2}, r"\[0, 1\]")],
)
def test_settings_out_of_range_are_refused(options: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        EnsembleInferer([8, 8], **options)  # type: ignore[arg-type]


def test_members_of_a_volume_are_chosen_by_the_mean_over_its_slices() -> None:
    """Not by the volume as a whole, in which the largest slice would decide."""
    labels = torch.zeros(6, 8, 8, 4, dtype=torch.uint8)
    for member, (large, small) in enumerate([(0, 0), (0, 1), (0, 2), (0, 3), (1, 3), (1, 3)]):
        labels[member, large : large + 6, :, 0] = 1
        labels[member, small, small, 1:] = 1
    inferer = EnsembleInferer([8, 8], members=2, oversampling=3)
    by_slice = torch.stack([jaccard_distances(labels[..., z], 2) for z in range(4)]).mean(dim=0)
    wanted = representatives(by_slice, 2)
    assert wanted != representatives(jaccard_distances(labels, 2), 2)
    assert torch.equal(inferer._kept(labels, 2, by_slice=True), labels[wanted])
    whole = inferer._kept(labels, 2, by_slice=False)
    assert torch.equal(whole, labels[representatives(jaccard_distances(labels, 2), 2)])
    middle = EnsembleInferer([8, 8], members=2, oversampling=3, diversity_weight=0.0)
    typical = representatives(by_slice, 2, 0.0)
    assert torch.equal(middle._kept(labels, 2, by_slice=True), labels[typical])
    plain = EnsembleInferer([8, 8], members=6)
    assert plain._kept(labels, 2, by_slice=True) is labels


def test_members_of_groups_are_taken_in_turn() -> None:
    """Member m is drawn from mirror image m modulo their number, and its noise stands for that."""
    distances = jaccard_distances(annotations((9, 8), 12), 3)
    taken = representatives(distances, 7, groups=3)
    assert [m % 3 for m in taken] == [0, 1, 2, 0, 1, 2, 0] and len(set(taken)) == 7
    assert taken[0] == 3 * int(distances.mean(dim=1)[::3].argmin())
    with pytest.raises(ValueError, match="multiple of 5"):
        representatives(distances, 2, groups=5)


def test_noise_that_images_share_gives_members_that_do_not_depend_on_case_and_seed() -> None:
    network, image = tiny_segmenter(2), torch.randn(1, 12, 10)

    def labels(case: str, **options: Any) -> Tensor:
        return EnsembleInferer([16, 16], members=3, **options).ensemble(image, network, case).labels

    shared = labels("a", member_noise=[5, 2])
    assert torch.equal(labels("b", member_noise=[5, 2], seed=1)[:2], shared[:2])
    assert torch.equal(labels("a")[2], shared[2])
    assert not torch.equal(labels("a")[0], shared[0])
