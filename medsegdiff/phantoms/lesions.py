"""Lesions for generated anatomy: their masks, and their effect on the image.

A lesion in the darkest structure is bright, one in any other is dark, by about the step between two
structures. So its intensity alone does not identify it; its position does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medsegdiff.phantoms.anatomy import smooth_field

DEPTH = 0.2
"""Least depth of a lesion's centre in its structure, as a share of the greatest depth there."""


def draw_lesions(
    levels: NDArray[np.float64], spacing: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Mask of one or two lesions, and the factor by which they change intensities.

    Args:
        levels: Level functions (classes, *shape), in about mm, as ``make_anatomy`` draws them.
        spacing: Size of a voxel along each axis, in mm.
        rng: Source of all randomness.

    Returns:
        Mask (*shape), inside the first structure; and factor (*shape), 1 outside of the mask.
    """
    shape = levels.shape[1:]
    mask, factor = np.zeros(shape, dtype=bool), np.ones(shape)
    axes = [np.arange(n) * step for n, step in zip(shape, spacing, strict=True)]
    mm = np.stack(np.meshgrid(*axes, indexing="ij"))
    extent = float(np.min(np.array(shape) * spacing))
    for _ in range(rng.integers(1, 3)):
        structure = int(rng.integers(len(levels)))
        depth = _depth(levels, structure)
        inside = np.argwhere(depth > DEPTH * depth.max())
        centre = mm[(slice(None), *inside[rng.integers(len(inside))])]
        radius = extent * rng.uniform(0.06, 0.1)
        distance = np.linalg.norm(mm - centre.reshape(-1, *[1] * len(shape)), axis=0)
        wobble = 0.15 * radius * smooth_field(shape, 2.0, rng)
        found = (radius - distance + wobble > 0) & (levels[0] > 0) & ~mask
        contrast = rng.uniform(0.35, 0.5) * (1.0 if structure == 0 else -1.0)
        factor[found] = np.exp(contrast)
        mask |= found
    return mask, factor


def _depth(levels: NDArray[np.float64], structure: int) -> NDArray[np.float64]:
    """Depth (*shape) in a structure outside of those that cover it; at most 0 elsewhere.

    If others cover all of the structure, the depth in the first structure is given instead.
    """
    upon = levels[structure + 1 :].max(axis=0, initial=-np.inf)
    depth: NDArray[np.float64] = np.minimum(levels[structure], -upon)
    return depth if depth.max() > 0 else levels[0]
