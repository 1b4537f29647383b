"""Overlap and distance of two masks of one class.

The rule for empty masks is the same for every overlap: both empty is agreement (1), one empty is
failure (0). A distance to nothing is undefined: NaN, for the caller to count.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

OVERLAP = ("dice", "iou", "precision", "recall", "f1")


def overlap(prediction: NDArray[Any], reference: NDArray[Any]) -> dict[str, float]:
    """Dice, IoU, precision, recall and F1, each in [0, 1].

    F1, the harmonic mean of precision and recall, equals Dice; both names are in use.

    Args:
        prediction: Mask of any shape, non-zero inside.
        reference: Mask of the same shape.

    Raises:
        ValueError: when the shapes differ.

    >>> overlap(np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0]))["precision"]
    0.5
    """
    p, r = _masks(prediction, reference)
    both = int(np.count_nonzero(p & r))
    n_p, n_r = int(np.count_nonzero(p)), int(np.count_nonzero(r))
    if n_p == 0 or n_r == 0:
        return dict.fromkeys(OVERLAP, 1.0 if n_p == n_r else 0.0)
    precision, recall = both / n_p, both / n_r
    return {
        "dice": 2 * both / (n_p + n_r),
        "iou": both / (n_p + n_r - both),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if both else 0.0,
    }


def dice(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Dice in [0, 1] alone; arguments and errors as in :func:`overlap`."""
    return overlap(prediction, reference)["dice"]


@contextmanager
def _without_monais_own_warning() -> Iterator[None]:
    """MONAI deprecated an argument of ``get_mask_edges`` that it still gives itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        yield


@_without_monais_own_warning()
def hd95_mm(prediction: NDArray[Any], reference: NDArray[Any], spacing: Sequence[float]) -> float:
    """95th percentile of the Hausdorff distance, in millimetres; NaN if a mask is empty.

    The larger of both directions' 95th percentile, over the distances from each voxel of one
    mask's border (its voxels that have a face neighbour outside) to the nearest of the other's.

    Args:
        prediction: Mask (X, Y[, Z]), non-zero inside.
        reference: Mask of the same shape.
        spacing: Size of a voxel along each axis, in mm.

    Raises:
        ValueError: when the shapes differ.
    """
    p, r = _masks(prediction, reference)
    if not p.any() or not r.any():
        return float("nan")
    return float(
        compute_hausdorff_distance(
            _batch(p),
            _batch(r),
            include_background=True,
            percentile=95,
            spacing=[float(s) for s in spacing],
        )
    )


@_without_monais_own_warning()
def surface_dice(
    prediction: NDArray[Any],
    reference: NDArray[Any],
    spacing: Sequence[float],
    tolerance_mm: float,
) -> float:
    """Share of both surfaces that lies within a tolerance of the other one, in [0, 1].

    The normalised surface distance of Nikolov et al. (2021), with surface elements weighted by
    their area; NaN if a mask is empty.

    Args:
        prediction: Mask (X, Y[, Z]), non-zero inside.
        reference: Mask of the same shape.
        spacing: Size of a voxel along each axis, in mm.
        tolerance_mm: Largest distance that counts as agreement, in mm.

    Raises:
        ValueError: when the shapes differ.
    """
    p, r = _masks(prediction, reference)
    if not p.any() or not r.any():
        return float("nan")
    return float(
        compute_surface_dice(
            _batch(p),
            _batch(r),
            class_thresholds=[float(tolerance_mm)],
            include_background=True,
            spacing=[float(s) for s in spacing],
            use_subvoxels=True,
        )
    )


def _masks(prediction: NDArray[Any], reference: NDArray[Any]) -> tuple[Mask, Mask]:
    if prediction.shape != reference.shape:
        raise ValueError(
            f"prediction and reference must have one shape. "
            f"Got {prediction.shape} and {reference.shape}."
        )
    return np.asarray(prediction, dtype=bool), np.asarray(reference, dtype=bool)


def _batch(mask: Mask) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(mask))[None, None]
