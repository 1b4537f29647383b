"""Resample slices that are not evenly spaced to even spacing, if the user chooses it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom.geometry import POSITION_TOLERANCE, Stack, uneven_gap
from medsegdiff.data.dicom.series import Series, apart

_LONE = 0.5  # of the usual gaps: a smaller one that is there once lies between two stacks
_MOST = 4
"""Largest ratio of resampled slices to those of the series; beyond, most would be invented."""


def check_even(stack: Stack, series: Series) -> None:
    """Refuse slices that are not evenly spaced.

    Raises:
        InputError: they are not; the message names the place.
    """
    where = uneven_gap(stack.along)
    if where is None:
        return
    gaps = np.diff(stack.along)
    where = min(where, len(gaps) - 1)
    rule = (
        f"slices are not evenly spaced: {gaps[where]:.2f} mm between slices {where + 1} and "
        f"{where + 2}, elsewhere {np.median(gaps):.2f} mm (is a slice missing?)"
    )
    remedy = "Fetch the missing slices"
    if _steps(gaps) + 1 <= _MOST * len(stack.along):
        remedy += ", or resample to even spacing (--uneven resample)"
    else:
        remedy = apart("stack")
    raise InputError(series, rule, remedy)


def even_stack(stack: Stack, series: Series) -> tuple[Stack, str]:
    """A stack of the same range with even spacing, and a note on it.

    The spacing is about the smallest gap, but not one that is there once and is less than half of
    the others: it lies where two stacks meet. The first and the last slice stay where they are.

    Raises:
        InputError: more than 4 times as many slices would be made.
    """
    gaps = np.diff(stack.along)
    extent = float(stack.along[-1] - stack.along[0])
    steps = _steps(gaps)
    if steps + 1 > _MOST * len(stack.along):
        rule = (
            f"slices lie {gaps.min():.2f} to {gaps.max():.2f} mm apart: even spacing would "
            f"make {steps + 1} of {len(stack.along)}"
        )
        raise InputError(series, rule, apart("stack"))
    along = np.linspace(stack.along[0], stack.along[-1], steps + 1)
    axes = stack.axes.copy()
    axes[:, 2] *= extent / steps
    note = (
        f"slices were not evenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm): resampled from "
        f"{len(stack.along)} to {steps + 1}, {extent / steps:.2f} mm apart, by linear interpolation"
    )
    return replace(stack, along=along, axes=axes, even=True), note


def _steps(gaps: NDArray[np.float64]) -> int:
    """Number of even steps instead of these gaps."""
    ascending = np.sort(gaps)
    again = np.diff(ascending) <= POSITION_TOLERANCE * ascending[1:]
    usual = ascending[:-1][again].min() if again.any() else ascending[0]
    step = usual if ascending[0] < _LONE * usual else ascending[0]
    return round(float(gaps.sum()) / float(step))


def interpolate(
    values: NDArray[np.float32], along: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Linear interpolation between slices.

    Args:
        values: Values (columns, rows, slices).
        along: Position (slices,) of each slice, in mm, ascending.
        wanted: Position (new slices,) of each new slice, in mm, within the same range.

    Returns:
        Values (columns, rows, new slices).

    >>> values = np.array([[[0, 10, 40]]], dtype=np.float32)
    >>> interpolate(values, np.array([0.0, 1, 3]), np.array([0.0, 1, 2, 3])).ravel().tolist()
    [0.0, 10.0, 25.0, 40.0]
    """
    above = np.clip(np.searchsorted(along, wanted), 1, len(along) - 1)
    shares = (wanted - along[above - 1]) / (along[above] - along[above - 1])
    result = np.empty((*values.shape[:2], len(wanted)), dtype=np.float32)
    for k, (upper, share) in enumerate(zip(above, shares.astype(np.float32), strict=True)):
        result[..., k] = values[..., upper - 1] * (1 - share) + values[..., upper] * share
    return result
