"""Of the masks around a click, the piece that the click is on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medsegdiff.segmentation.segmented_case import SegmentedCase


def keep_clicked(case: SegmentedCase, click: NDArray[np.float64], within_mm: float) -> None:
    """Remove what lies elsewhere, such as a vessel in a slice beyond a nodule; in place.

    Of each member's mask, and of the mask and the anchor, the connected piece nearest to the click
    is kept, whatever its classes; a mask without a piece near enough becomes empty. Probability
    and variance that are nearer to what was removed than to what any of them keeps become those of
    background.

    Args:
        case: Case of three axes; its maps are changed.
        click: Voxel index (3,) of the click, which need not be whole.
        within_mm: Greatest distance in mm from the click to a voxel of the piece.
    """
    masks = [case.mask, *case.members, *(() if case.anchor is None else (case.anchor,))]
    apart = _distance(case.mask.shape, click, case.geometry.spacing)
    kept, removed = (np.zeros(case.mask.shape, dtype=bool) for _ in range(2))
    for mask in masks:
        piece = _nearest_piece(mask > 0, apart, within_mm)
        kept |= piece
        removed |= (mask > 0) & ~piece
        mask[~piece] = 0
    elsewhere = _nearer(removed & ~kept, kept, case.geometry.spacing)
    case.mean[1:, elsewhere] = case.variance[:, elsewhere] = case.entropy[elsewhere] = 0.0
    case.mean[0, elsewhere] = 1.0


def _distance(
    shape: Sequence[int], click: NDArray[np.float64], spacing: Sequence[float]
) -> NDArray[np.float64]:
    """Distance (*shape) of each voxel from the click in mm."""
    axes = [(np.arange(n) - c) * s for n, c, s in zip(shape, click, spacing, strict=True)]
    x, y, z = np.ix_(*axes)
    return np.asarray(np.sqrt(x**2 + y**2 + z**2))


def _nearest_piece(
    mask: NDArray[np.bool_], apart: NDArray[np.float64], within_mm: float
) -> NDArray[np.bool_]:
    """The connected piece of a mask that is nearest to the click; none if it is too far."""
    pieces, _ = ndimage.label(mask)
    nearest = int(np.where(mask, apart, np.inf).argmin())
    if not mask.flat[nearest] or apart.flat[nearest] > within_mm:
        return np.zeros_like(mask)
    return np.asarray(pieces == pieces.flat[nearest])


def _nearer(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing: Sequence[float]
) -> NDArray[np.bool_]:
    """Voxels nearer to the first region than to the second; none or all if one is empty."""
    if not first.any():
        return np.zeros_like(first)
    if not second.any():
        return np.ones_like(first)
    to_first, to_second = (
        ndimage.distance_transform_edt(~region, sampling=spacing) for region in (first, second)
    )
    return np.asarray(to_first < to_second)
