"""From the overlapping regions of a sigmoid model to the classes of a label map.

nnU-Net's region-based training gives a probability for each region, such as the whole tumour and
its core within. Regions that hold each other form a tree. The probability of the label that a
region alone has is that of the region less those of the regions within.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medsegdiff.other_models.predicted import Maps


def is_nested(regions: Sequence[frozenset[int]]) -> bool:
    """Whether of two regions that overlap one always holds the other, and none is there twice."""
    pairs = ((a, b) for i, a in enumerate(regions) for b in regions[:i])
    return all(a != b and (not a & b or a < b or b < a) for a, b in pairs)


def classes_of_regions(
    maps: Maps, regions: Sequence[frozenset[int]], order: Sequence[int]
) -> dict[int, Maps]:
    """Probability of each label, from those of nested regions.

    A region cannot be more probable than one that holds it, and those within one cannot be more
    probable together than it: where the model says so, the inner ones give way.

    Args:
        maps: Probabilities (R, *shape) in [0, 1] of the regions, not summing to 1.
        regions: Labels of each region; nested, see ``is_nested``.
        order: Label that a voxel of each region gets where no region within has it.

    Returns:
        Label, with 0 for the background -> probability (*shape); they sum to 1.
    """
    by_size = sorted(range(len(regions)), key=lambda r: -len(regions[r]))
    parent: dict[int, int | None] = {}
    for place, r in enumerate(by_size):
        holders = [o for o in by_size[:place] if regions[r] < regions[o]]
        parent[r] = min(holders, key=lambda o: len(regions[o])) if holders else None
    inside: dict[int | None, Maps] = {None: np.ones_like(maps[0])}
    found: dict[int, Maps] = {}
    for holder in (None, *by_size):
        children = [r for r in by_size if parent[r] == holder]
        of_children = [np.minimum(maps[r], inside[holder]) for r in children]
        total = np.sum(of_children, axis=0) if children else np.zeros_like(maps[0])
        shrunk = inside[holder] / np.maximum(total, 1e-12)
        for r, own in zip(children, of_children, strict=True):
            inside[r] = own * np.minimum(1.0, shrunk)
        rest = np.maximum(inside[holder] - total, 0.0)
        label = 0 if holder is None else order[holder]
        found[label] = found[label] + rest if label in found else rest
    return found


def mask_of_regions(maps: Maps, order: Sequence[int]) -> np.ndarray:
    """The label map (*shape) that nnU-Net writes: the last region above 0.5 has the voxel.

    Args:
        maps: Probabilities (R, *shape) of the regions.
        order: Label of each region.
    """
    mask = np.zeros(maps.shape[1:], dtype=np.uint8)
    for own, label in zip(maps, order, strict=True):
        mask[own > 0.5] = label
    return mask
