"""Figures that check a guarantee: missed share of outer masks, wrong share of inner masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def missed_fraction(
    outer: Mask, reference: Mask, weight: NDArray[np.float64] | None = None
) -> float:
    """Share of the reference outside of the outer mask; 0 where the reference is empty.

    Args:
        outer: Outer mask, any shape.
        reference: Reference mask, same shape.
        weight: Number of voxels that each stands for, same shape; 1 if None.
    """
    size = _size(reference, weight)
    return _size(reference & ~outer, weight) / size if size else 0.0


def wrong_fraction(
    inner: Mask, reference: Mask, weight: NDArray[np.float64] | None = None
) -> float:
    """Share of the inner mask outside of the reference; 0 where the mask is empty.

    Args:
        inner: Inner mask, any shape.
        reference: Reference mask, same shape.
        weight: Number of voxels that each stands for, same shape; 1 if None.
    """
    size = _size(inner, weight)
    return _size(inner & ~reference, weight) / size if size else 0.0


def covered(interval: Sequence[float | None], volume: float) -> bool:
    """Whether a volume lies in [low, high], up to rounding; no upper limit if high is None."""
    low, high = interval
    slack = 1e-9 * (1.0 + volume)
    return (low or 0.0) - slack <= volume and (high is None or volume <= high + slack)


def _size(mask: Mask, weight: NDArray[np.float64] | None) -> float:
    return float(np.count_nonzero(mask) if weight is None else weight[mask].sum())
