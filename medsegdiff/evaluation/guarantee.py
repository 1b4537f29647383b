"""Does a guarantee hold: what the inner and outer masks of a case miss, and hold wrongly."""

from __future__ import annotations

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
