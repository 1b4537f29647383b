"""Figures that check a guarantee: missed share of outer masks, wrong share of inner masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def missed_fraction(outer: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Share of the reference outside of the outer mask; 0 where the reference is empty."""
    size = np.count_nonzero(reference)
    return float(np.count_nonzero(reference & ~outer) / size) if size else 0.0


def wrong_fraction(inner: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Share of the inner mask outside of the reference; 0 where the mask is empty."""
    size = np.count_nonzero(inner)
    return float(np.count_nonzero(inner & ~reference) / size) if size else 0.0


def covered(interval: Sequence[float | None], volume: float) -> bool:
    """Whether a volume lies in [low, high], up to rounding; no upper limit if high is None."""
    low, high = interval
    slack = 1e-9 * (1.0 + volume)
    return (low or 0.0) - slack <= volume and (high is None or volume <= high + slack)
