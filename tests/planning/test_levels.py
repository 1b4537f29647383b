"""Strides and kernels by axis."""

from __future__ import annotations

import pytest

from medsegdiff.planning.levels import LEAST_SIDE, topology


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 8.0), (1.0, 3.0, 1.0), (2.0, 1.0, 1.0)])
def test_no_axis_falls_below_its_least_side(spacing: tuple[float, ...]) -> None:
    patch = (64, 48, 12)
    strides, kernels = topology(patch, spacing, 5, {})
    size, space = list(patch), list(spacing)
    for step, kernel in zip(strides, kernels, strict=True):
        assert all(k == 1 or s < 2 * min(space) for k, s in zip(step, space, strict=True))
        size = [n // k for n, k in zip(size, step, strict=True)]
        space = [s * k for s, k in zip(space, step, strict=True)]
        assert all((k == 3) == (s < 2 * min(space)) for k, s in zip(kernel, space, strict=True))
    assert min(size) >= LEAST_SIDE
