"""Each metric against an implementation of its own kind; states of several processes add up."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from scipy import ndimage
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor
from torchmetrics.classification import BinaryCalibrationError

from medsegdiff.metrics import (
    BrierScore,
    ExpectedCalibrationError,
    GeneralizedEnergyDistance,
    HungarianMatchedIoU,
    NegativeLogLikelihood,
    SampleDiversity,
    reliability,
)

SHAPES = [(7, 6), (5, 4, 6)]
CLASSES = (1, 2)


def label_maps(count: int, shape: tuple[int, ...], seed: int, images: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 3, (images, count, *shape), generator=generator, dtype=torch.uint8)


def probabilities(shape: tuple[int, ...], images: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand((images, 3, *shape), generator=generator, dtype=torch.float64).softmax(dim=1)


def distance(a: Tensor, b: Tensor) -> float:
    """1 - IoU, averaged over the classes, voxel by voxel."""
    found = []
    for k in CLASSES:
        pairs = list(zip((a == k).flatten().tolist(), (b == k).flatten().tolist(), strict=True))
        union = sum(x or y for x, y in pairs)
        found.append(1 - sum(x and y for x, y in pairs) / union if union else 0.0)
    return sum(found) / len(found)


def expected_distance(first: Tensor, second: Tensor) -> float:
    return float(np.mean([distance(a, b) for a in first for b in second]))


def slow_ged2(samples: Tensor, raters: Tensor) -> float:
    within = expected_distance(samples, samples) + expected_distance(raters, raters)
    return 2 * expected_distance(samples, raters) - within


def slow_hm_iou(samples: Tensor, raters: Tensor) -> float:
    """All matchings of the samples to the raters, each rater repeated."""
    repeated = [r for r in raters for _ in range(len(samples) // len(raters))]
    matchings = itertools.permutations(repeated)
    costs = ([distance(s, r) for s, r in zip(samples, m, strict=True)] for m in matchings)
    return 1 - min(float(np.mean(one)) for one in costs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("metric", "slow"),
    [
        (GeneralizedEnergyDistance, slow_ged2),
        (HungarianMatchedIoU, slow_hm_iou),
        (SampleDiversity, lambda samples, _: expected_distance(samples, samples)),
    ],
)
def test_sets_agree_with_slow_loops(
    metric: type[GeneralizedEnergyDistance],
    slow: Callable[[Tensor, Tensor], float],
    shape: tuple[int, ...],
) -> None:
    samples, raters = label_maps(4, shape, 0), label_maps(2, shape, 1)
    collected = metric(classes=CLASSES)
    collected.update(samples[:2], raters[:2])
    collected.update(list(samples[2:]), list(raters[2:]))  # taken apart
    expected = np.mean([slow(s, r) for s, r in zip(samples, raters, strict=True)])
    assert collected.compute().item() == pytest.approx(expected)


def region(raters: Tensor, k: int, near: int | None) -> np.ndarray:
    marked = (raters == k).any(dim=0).numpy()
    if near is None:
        return np.ones(marked.shape, bool)
    return np.asarray(ndimage.distance_transform_cdt(~marked, "taxicab") <= near)


def reference_figure(
    p: Tensor, raters: Tensor, near: int | None, of: Callable[[Any, Any], float]
) -> float:
    """Mean over classes and images of a function of probabilities and single votes."""
    found = []
    for probability, votes in zip(p, raters, strict=True):
        for k in CLASSES:
            inside = region(votes, k, near)
            truth = (votes == k).numpy()[:, inside]
            repeated = np.repeat(probability[k].numpy()[inside][None], len(votes), axis=0)
            found.append(of(truth.ravel(), repeated.ravel()))
    return float(np.mean(found))


def torchmetrics_ece(truth: Any, p: Any) -> float:
    metric = BinaryCalibrationError(n_bins=15, norm="l1")
    return float(metric(torch.as_tensor(p), torch.as_tensor(truth.astype(int))))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("near", [None, 1])
@pytest.mark.parametrize("raters", [1, 3])
def test_probabilities_agree_with_other_libraries(
    shape: tuple[int, ...], near: int | None, raters: int
) -> None:
    """Of several raters: as if each voted on a copy of the voxel, but for the Brier score."""
    p, truth = probabilities(shape), label_maps(raters, shape, 2)
    truth = torch.where(label_maps(raters, shape, 3) > 1, truth, 0).to(torch.uint8)
    pairs: list[tuple[Any, Callable[[Any, Any], float]]] = [
        (ExpectedCalibrationError(CLASSES, near), torchmetrics_ece),
        (NegativeLogLikelihood(CLASSES, near), lambda y, q: log_loss(y, q, labels=[0, 1])),
    ]
    if raters == 1:
        pairs.append((BrierScore(CLASSES, near), brier_score_loss))
    for metric, of in pairs:
        metric.update(p, truth)
        expected = reference_figure(p, truth, near, of)
        assert metric.compute().item() == pytest.approx(expected, rel=1e-5), metric


def test_brier_of_several_raters_is_that_of_their_share() -> None:
    p, truth = probabilities((5, 4)), label_maps(3, (5, 4), 2)
    metric = BrierScore(CLASSES)
    metric.update(p, truth)
    shares = [(truth == k).double().mean(dim=1) for k in CLASSES]
    expected = np.mean(
        [(p[:, k] - s).square().mean() for k, s in zip(CLASSES, shares, strict=True)]
    )
    assert metric.compute().item() == pytest.approx(expected)


def test_pooled_calibration_is_that_of_torchmetrics_over_all_images() -> None:
    p, truth = probabilities((7, 6)), label_maps(1, (7, 6), 2)
    pooled = ExpectedCalibrationError(CLASSES, pooled=True, per_class=True)
    theirs = [BinaryCalibrationError(n_bins=15, norm="l1") for _ in CLASSES]
    for image in range(len(p)):
        pooled.update(p[image : image + 1], truth[image : image + 1])
        for k, other in zip(CLASSES, theirs, strict=True):
            other.update(p[image, k], (truth[image, 0] == k).int())
    expected = [other.compute().item() for other in theirs]
    np.testing.assert_allclose(pooled.compute(), expected, rtol=1e-5)


def test_what_is_undefined_leaves_the_mean() -> None:
    p, truth = probabilities((7, 6)), label_maps(1, (7, 6), 2)
    truth[0] = torch.where(truth[0] == 2, 0, truth[0])  # nothing of class 2, so no region
    metric = ExpectedCalibrationError(CLASSES, near=1, per_class=True)
    metric.update(p, truth)
    rest = ExpectedCalibrationError((2,), near=1)
    rest.update(p[1:], truth[1:])
    assert metric.compute()[1].item() == pytest.approx(rest.compute().item())
    metric.reset()
    assert metric.compute().isnan().all()


def test_unknown_voxels_do_not_count() -> None:
    """Whatever stands there in the masks and probabilities, the figures are the same."""
    samples, raters, p = label_maps(4, (7, 6), 0), label_maps(2, (7, 6), 1), probabilities((7, 6))
    raters[:, :, :2] = 255
    other_samples, other_p = samples.clone(), p.clone()
    other_samples[:, :, :2], other_p[:, :, :2] = 1, 1 / 3
    for metric, maps, others in (
        (GeneralizedEnergyDistance(CLASSES), samples, other_samples),
        (ExpectedCalibrationError(CLASSES), p, other_p),
        (BrierScore(CLASSES), p, other_p),
    ):
        found = []
        for one in (maps, others):
            metric.reset()
            metric.update(one, raters)
            found.append(metric.compute().item())
        assert found[0] == found[1] and not math.isnan(found[0])


@pytest.mark.parametrize(
    ("metric", "first", "second", "words"),
    [
        (GeneralizedEnergyDistance(), (1, 2, 3, 3), (1, 2, 3, 4), "on one grid"),
        (GeneralizedEnergyDistance(), (2, 2, 3, 3), (1, 2, 3, 3), "2 images have 1"),
        (BrierScore((1, 2)), (1, 2, 3, 3), (1, 1, 3, 3), "class 2 needs"),
    ],
)
def test_wrong_shapes_are_refused(
    metric: Any, first: tuple[int, ...], second: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        metric.update(torch.zeros(first), torch.zeros(second))


def test_a_metric_without_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one foreground class"):
        GeneralizedEnergyDistance(classes=())


def _of_rank(rank: int, folder: str) -> None:
    """One of two processes: each sees its own images, both compute the figure of all."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    samples, raters, p = label_maps(4, (7, 6), 0), label_maps(2, (7, 6), 1), probabilities((7, 6))
    mine = slice(0, 1) if rank == 0 else slice(1, 3)
    sets = GeneralizedEnergyDistance(CLASSES)
    sets.update(samples[mine], raters[mine])
    pooled = ExpectedCalibrationError(CLASSES, pooled=True)
    pooled.update(p[mine], raters[mine])
    torch.save([sets.compute(), pooled.compute()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.long
def test_two_processes_compute_the_figure_of_all_images(tmp_path: Path) -> None:
    mp.spawn(_of_rank, args=(str(tmp_path),), nprocs=2)
    samples, raters, p = label_maps(4, (7, 6), 0), label_maps(2, (7, 6), 1), probabilities((7, 6))
    sets, pooled = (
        GeneralizedEnergyDistance(CLASSES),
        ExpectedCalibrationError(CLASSES, pooled=True),
    )
    sets.update(samples, raters)
    pooled.update(p, raters)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, [sets.compute(), pooled.compute()])


@pytest.mark.parametrize(
    ("metric", "first", "second", "told"),
    [
        (
            GeneralizedEnergyDistance(),
            (1, 2, 3, 3),
            (1, 2, 3, 4),
            "maps (N, *spatial) and references (M, *spatial) must be on one grid. "
            "Got (2, 3, 3) and (2, 3, 4).",
        ),
        (
            BrierScore((1,)),
            (1, 2, 3, 3),
            (1, 0, 3, 3),
            "maps (N, *spatial) and references (M, *spatial) must be on one grid. "
            "Got (2, 3, 3) and (0, 3, 3).",
        ),
        (
            GeneralizedEnergyDistance(),
            (2, 2, 3, 3),
            (1, 2, 3, 3),
            "2 images have 1 references.",
        ),
        (
            BrierScore((1, 2)),
            (1, 2, 3, 3),
            (1, 1, 3, 3),
            "class 2 needs as many channels, and one for background. Got 2 channels.",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_what_came(
    metric: Any, first: tuple[int, ...], second: tuple[int, ...], told: str
) -> None:
    with pytest.raises(ValueError) as error:
        metric.update(torch.zeros(first), torch.zeros(second))
    assert str(error.value) == told


def test_a_metric_without_classes_says_so() -> None:
    with pytest.raises(ValueError) as error:
        BrierScore(classes=())
    assert str(error.value) == "classes must name at least one foreground class. Got none."


@pytest.mark.parametrize("pooled", [False, True])
def test_bins_and_classes_are_those_that_were_asked_for(pooled: bool) -> None:
    p, truth = probabilities((7, 6), images=1), label_maps(2, (7, 6), 2, images=1)
    metric = ExpectedCalibrationError((2, 1), per_class=True, bins=4, pooled=pooled)
    metric.update(p, truth)
    expected = [
        reliability(p[0, k].numpy(), (truth[0] == k).double().mean(dim=0).numpy(), bins=4).ece
        for k in (2, 1)
    ]
    np.testing.assert_allclose(metric.compute(), expected)
    assert metric.compute().dtype == torch.float64
    whole = ExpectedCalibrationError((2, 1), bins=4, pooled=pooled)
    whole.update(p, truth)
    assert whole.compute().item() == pytest.approx(np.mean(expected))
    whole.reset()
    assert math.isnan(whole.compute().item())


def test_figures_of_images_are_averaged_by_class_where_they_are_defined() -> None:
    p, truth = probabilities((7, 6)), label_maps(1, (7, 6), 2)
    truth[:2] = torch.where(truth[:2] == 2, 0, truth[:2])
    metric = BrierScore(CLASSES, near=0, per_class=True)
    metric.update(p, truth)
    expected = [
        np.mean([(1 - p[i, k][truth[i, 0] == k]).square().mean() for i in images])
        for k, images in ((1, range(3)), (2, (2,)))
    ]
    np.testing.assert_allclose(metric.compute(), expected)
