"""Overlap against torchmetrics, distances against surface-distance, scipy and by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
import surface_distance
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist
from torchmetrics.functional.classification import (
    binary_f1_score,
    binary_jaccard_index,
    binary_precision,
    binary_recall,
)

from medsegdiff.metrics.overlap import OVERLAP, dice, hd95_mm, overlap, surface_dice

GRIDS = [
    ((14, 12, 10), (1.0, 1.0, 1.0)),
    ((14, 12, 6), (0.7, 1.3, 4.0)),
    ((24, 20), (0.5, 2.0)),
]


def blob(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A random smooth mask that also touches the border of the grid."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 2) > 0


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
def test_overlap_agrees_with_torchmetrics(
    shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    p, r = blob(shape, 0), blob(shape, 1)
    inputs = torch.from_numpy(p).int(), torch.from_numpy(r).int()
    found = overlap(p, r)
    assert found["iou"] == pytest.approx(float(binary_jaccard_index(*inputs)))
    assert found["precision"] == pytest.approx(float(binary_precision(*inputs)))
    assert found["recall"] == pytest.approx(float(binary_recall(*inputs)))
    assert found["f1"] == pytest.approx(float(binary_f1_score(*inputs)))
    assert found["dice"] == pytest.approx(found["f1"])
    assert found["iou"] == pytest.approx(found["dice"] / (2 - found["dice"]))


def test_dice_agrees_with_simpleitk() -> None:
    p, r = blob((14, 12, 10), 0), blob((14, 12, 10), 1)
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (p, r)))
    assert dice(p, r) == pytest.approx(measures.GetDiceCoefficient(1))


def test_empty_masks_agree_or_fail() -> None:
    empty, full = np.zeros((3, 4), bool), np.ones((3, 4), bool)
    assert overlap(empty, empty) == dict.fromkeys(OVERLAP, 1.0)
    assert overlap(full, empty) == overlap(empty, full) == dict.fromkeys(OVERLAP, 0.0)


def test_disjoint_masks_have_no_overlap() -> None:
    mask = np.array([True, False])
    assert overlap(mask, ~mask) == dict.fromkeys(OVERLAP, 0.0)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("seed", [0, 2])
def test_hd95_agrees_with_all_pairs_of_border_voxels(
    shape: tuple[int, ...], spacing: tuple[float, ...], seed: int
) -> None:
    masks = blob(shape, seed), blob(shape, seed + 1)
    borders = [np.argwhere(m & ~ndimage.binary_erosion(m)) * spacing for m in masks]
    distances = cdist(*borders)
    expected = max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))
    assert hd95_mm(*masks, spacing) == pytest.approx(expected, rel=1e-5)
    assert hd95_mm(*masks[::-1], spacing) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("shape", "spacing"), GRIDS)
@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.5])
def test_surface_dice_agrees_with_surface_distance(
    shape: tuple[int, ...], spacing: tuple[float, ...], tolerance: float
) -> None:
    p, r = blob(shape, 0), blob(shape, 1)
    distances = surface_distance.compute_surface_distances(r, p, spacing)
    expected = surface_distance.compute_surface_dice_at_tolerance(distances, tolerance)
    assert surface_dice(p, r, spacing, tolerance) == pytest.approx(expected, rel=1e-5)


def test_distances_follow_the_spacing_of_the_shifted_axis() -> None:
    r = np.zeros((12, 12, 12), bool)
    r[3:6, 4:8, 4:8] = True
    p = np.roll(r, 3, axis=0)
    assert hd95_mm(p, r, (2.0, 1.0, 1.0)) == pytest.approx(6.0)
    assert hd95_mm(r, r, (2.0, 1.0, 1.0)) == 0.0
    assert surface_dice(r, r, (2.0, 1.0, 1.0), 0.1) == pytest.approx(1.0)


def test_distance_to_an_empty_mask_is_undefined() -> None:
    empty, full = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    for p, r in ((empty, full), (full, empty), (empty, empty)):
        assert math.isnan(hd95_mm(p, r, (1.0, 1.0, 1.0)))
        assert math.isnan(surface_dice(p, r, (1.0, 1.0, 1.0), 1.0))


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 2\)"):
        overlap(np.ones((2, 3)), np.ones((3, 2)))


def test_distances_do_not_warn_of_monais_own_call() -> None:
    p, r = blob((14, 12), 0), blob((14, 12), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        hd95_mm(p, r, (1.0, 1.0))
        surface_dice(p, r, (1.0, 1.0), 1.0)


def test_masks_may_be_numbers_of_any_value() -> None:
    a, b = np.array([[0, 1, 2, 3]]), np.array([[0.0, 0.5, 0.0, 2.0]])
    expected = overlap(a > 0, b > 0)
    assert overlap(a, b) == expected
    assert dice(a, b) == expected["dice"] == pytest.approx(0.8)
