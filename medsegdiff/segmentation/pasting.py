"""Parts of a scan that were segmented by themselves, pasted into the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.storage import Storage, slowest_axis
from medsegdiff.core.types import Geometry
from medsegdiff.segmentation.segmented_case import SegmentedCase

Box = tuple[slice, ...]
"""Part of a grid."""


def pasted(
    scan: NDArray[np.float32],
    geometry: Geometry,
    parts: Mapping[str, tuple[Box, SegmentedCase]],
    storage: Storage,
) -> SegmentedCase:
    """The maps of a whole scan, which is background outside its parts.

    Where parts overlap, a voxel is taken from the part in which it is less likely background.

    Args:
        scan: Intensities (C, *shape).
        geometry: Geometry of the scan.
        parts: Name of a place -> part of the grid, and the maps on it; one at least.
        storage: Maker of the arrays.

    Raises:
        InputError: the disk has no room for the maps.
    """
    _, first = next(iter(parts.values()))
    shape, slowest = scan.shape[1:], slowest_axis(scan)

    mean, variance = (
        storage.zeros((len(first.mean), *shape), "float32", slowest) for _ in range(2)
    )
    members = storage.zeros((len(first.members), *shape), "uint8", slowest)
    entropy = storage.zeros((1, *shape), "float32", slowest)[0]
    mask, anchor = (storage.zeros((1, *shape), "uint8", slowest)[0] for _ in range(2))
    mean[0] = 1.0
    for box, part in parts.values():
        everywhere = (slice(None), *box)
        rather = part.mean[0] < mean[0][box]
        np.copyto(mean[everywhere], part.mean, where=rather)
        np.copyto(variance[everywhere], part.variance, where=rather)
        np.copyto(members[everywhere], part.members, where=rather)
        np.copyto(entropy[box], part.entropy, where=rather)
        np.copyto(mask[box], part.mask, where=rather)
        if part.anchor is not None:
            np.copyto(anchor[box], part.anchor, where=rather)
    cases = [part for _, part in parts.values()]
    return SegmentedCase(
        geometry=geometry,
        image=scan,
        mask=mask,
        mean=mean,
        variance=variance,
        entropy=entropy,
        anchor=None if first.anchor is None else anchor,
        members=members,
        seconds=_summed([case.seconds for case in cases]),
        windows=_summed([case.windows for case in cases]),
        storage=storage,
        calibration_shift=max(case.calibration_shift for case in cases),
        places={name: box for name, (box, _) in parts.items()},
        features=tuple(place for case in cases for place in case.features),
    )


def _summed(of_parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: sum(one[name] for one in of_parts) for name in of_parts[0]}
