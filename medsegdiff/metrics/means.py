"""Means over what is defined: NaN stands for a figure that could not be computed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_defined(values: list[float] | NDArray[np.float64]) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    array = np.asarray(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if defined.size else float("nan")
