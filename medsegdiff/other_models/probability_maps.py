"""Checks of probability maps, whoever made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.other_models.predicted import Maps

TOLERANCE = 0.02
"""Greatest distance of a voxel's sum from 1: float16, and maps that were resampled one by one."""

_SAVE = "Save the probabilities after the softmax, in [0, 1]"


def in_unit_range(maps: NDArray[Any], source: Path) -> Maps:
    """Maps of any shape as float32, clipped to [0, 1].

    Args:
        maps: Values that should lie in [0, 1] but for rounding.
        source: File that they come from.

    Raises:
        InputError: a value is NaN, infinite or outside of [0, 1].
    """
    values = np.asarray(maps, dtype=np.float32)
    low, high = (float(values.min()), float(values.max())) if values.size else (np.nan, np.nan)
    if not (low >= -TOLERANCE and high <= 1.0 + TOLERANCE):  # also true with a NaN
        rule = f"must hold probabilities in [0, 1], but holds {low:.4g} to {high:.4g}"
        hint = " (divide by 255)" if 2.0 < high <= 255.0 and low >= 0.0 else ""
        raise InputError(source, rule, f"{_SAVE}{hint}, not logits")
    return np.clip(values, 0.0, 1.0)


def summing_to_one(maps: NDArray[Any], source: Path) -> Maps:
    """Maps (K, *shape) of all classes, scaled to sum to exactly 1.

    Args:
        maps: Probabilities (K, *shape), background first.
        source: File that they come from.

    Raises:
        InputError: values lie outside of [0, 1], or do not sum to 1.
    """
    values = in_unit_range(maps, source)
    total = values.sum(axis=0)
    if np.abs(total - 1.0).max() > TOLERANCE:
        rule = "the probabilities of a voxel must sum to 1 over the classes, "
        found = f"but the sums are {total.min():.4g} to {total.max():.4g}"
        raise InputError(source, rule + found, f"{_SAVE}, with the background")
    return np.asarray(values / total, dtype=np.float32)


def with_background(maps: NDArray[Any], source: Path) -> Maps:
    """Maps (K - 1, *shape) of the foreground, with that of the background before them.

    Args:
        maps: Probabilities (K - 1, *shape) of the foreground classes.
        source: File or folder that they come from.

    Raises:
        InputError: values lie outside of [0, 1], or sum to more than 1.
    """
    values = in_unit_range(maps, source)
    highest = float(values.sum(axis=0).max())
    if highest > 1.0 + TOLERANCE:
        rule = f"the probabilities of a voxel sum to {highest:.4g} over the classes, more than 1"
        raise InputError(source, rule, f"{_SAVE}: its classes must not overlap")
    background = (1.0 - values.sum(axis=0, keepdims=True)).clip(0.0, 1.0)
    both = np.concatenate([background, values])
    return np.asarray(both / both.sum(axis=0), dtype=np.float32)
