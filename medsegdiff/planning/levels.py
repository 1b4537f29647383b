"""The levels of a planned network: strides and kernels, by axis."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

LEAST_SIDE = 4
"""Voxels that an axis keeps at the deepest level (nnU-Net's rule)."""


def multiples(strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """What the sides of a patch have to divide by, along each axis."""
    return tuple(prod(axis) for axis in zip(*strides, strict=True))


def topology(
    patch: Sequence[int], spacing: Sequence[float], most: int, why: dict[str, str]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Strides and kernels of the levels, by axis.

    An axis is halved as long as it keeps ``LEAST_SIDE`` voxels and its spacing is within a factor
    of 2 of the least; a convolution reaches along an axis once it is.

    Args:
        patch: Size of a patch, in voxels.
        spacing: Spacing along each axis.
        most: Greatest number of levels.
        why: Reasons, to which one is added.
    """
    dims = len(patch)
    size, space = list(patch), list(spacing)
    strides: list[tuple[int, ...]] = [(1,) * dims]
    kernels = [_kernel(space)]
    while len(strides) < most:
        finest = min(space)
        step = [
            2 if n // 2 >= LEAST_SIDE and s < 2.0 * finest else 1
            for n, s in zip(size, space, strict=True)
        ]
        if max(step) == 1:
            break
        size = [-(-n // k) for n, k in zip(size, step, strict=True)]
        space = [s * k for s, k in zip(space, step, strict=True)]
        strides.append(tuple(step))
        kernels.append(_kernel(space))
    while len(strides) < 3:  # a denoiser of two levels below the image's own needs three
        strides.append((2,) * dims)
        kernels.append((3,) * dims)
    apart = any(min(step) == 1 for step in strides[1:])
    why["strides"] = (
        "a coarse axis is not halved before the others have come to its spacing, and its slices "
        "are not mixed before"
        if apart
        else "all axes are halved alike: their spacings agree within a factor of 2"
    )
    return tuple(strides), tuple(kernels)


def _kernel(spacing: Sequence[float]) -> tuple[int, ...]:
    return tuple(3 if s < 2.0 * min(spacing) else 1 for s in spacing)
