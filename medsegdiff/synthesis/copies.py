"""Distances of drawn images to the nearest training image, which reveal copies."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from medsegdiff.networks.layers import pool


def aligned_distances(
    queries: Tensor,
    references: Tensor,
    *,
    shift: int = 2,
    coarse: int = 1,
    mirror_axes: Sequence[int] = (),
) -> Tensor:
    """Distances between images after alignment.

    The root mean square difference of the standardised middles of both, the least over all shifts
    of the reference and over its mirror images. So neither a shift, nor a mirror image, nor another
    brightness or contrast hides a copy. It lies between 0 and 2; unrelated images have sqrt(2).

    Args:
        queries: Images (N, C, *spatial) on one grid.
        references: Images (M, C, *spatial) on the same grid.
        shift: Greatest shift along each axis, in coarse voxels.
        coarse: Side of the patches that images are averaged over first, in voxels.
        mirror_axes: Spatial axes along which anatomy may be mirrored.

    Returns:
        Distances (N, M).

    Raises:
        ValueError: the images are on two grids, or are too small for the shift.
    """
    if queries.shape[1:] != references.shape[1:]:
        shapes = f"{tuple(queries.shape[1:])} and {tuple(references.shape[1:])}"
        raise ValueError(f"images must lie on one grid. Got {shapes}.")
    q, r = pool(queries.float(), coarse), pool(references.float(), coarse)
    if min(q.shape[2:]) <= 2 * shift:
        raise ValueError(
            f"a shift of {shift} leaves nothing of {tuple(q.shape[2:])} coarse voxels."
        )
    middle = _standardised(_window(q, [shift] * (q.ndim - 2), shift))
    least = torch.full((len(q), len(r)), torch.inf)
    for flips in _subsets(mirror_axes):
        mirrored = r.flip([2 + axis for axis in flips])
        for start in itertools.product(range(2 * shift + 1), repeat=q.ndim - 2):
            other = _standardised(_window(mirrored, start, shift))
            # Of standardised images the mean square difference is 2 - 2 their correlation.
            squares = 2.0 - 2.0 * middle @ other.T / middle.shape[1]
            least = torch.minimum(least, squares.clamp(min=0.0).sqrt())
    return least


def nearest(distances: Tensor, *, same: bool = False) -> tuple[Tensor, Tensor]:
    """Distance (N,) and index (N,) of each query's nearest reference.

    Args:
        distances: Distances (N, M) of queries to references.
        same: Whether the queries are the references; each is then left out for itself.
    """
    if same:
        distances = distances + torch.diag(torch.full((len(distances),), torch.inf))
    values, indices = distances.min(dim=1)
    return values, indices


def copy_threshold(real: Tensor, percentile: float) -> float:
    """Distance below which an image is a copy: a percentile of real nearest distances (N,)."""
    return float(torch.quantile(real, percentile / 100.0))


def _window(x: Tensor, start: Sequence[int], shift: int) -> Tensor:
    for axis, first in enumerate(start, start=2):
        x = x.narrow(axis, first, x.shape[axis] - 2 * shift)
    return x.flatten(1)


def _standardised(x: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(x, dim=1, keepdim=True, correction=0)
    return (x - mean) / deviation.clamp(min=1e-6)


def _subsets(axes: Sequence[int]) -> list[tuple[int, ...]]:
    return [s for n in range(len(axes) + 1) for s in itertools.combinations(axes, n)]
