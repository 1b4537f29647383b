"""Label maps -> segmentation files of 3D Slicer (``.seg.nrrd``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.files import written_aside
from medsegdiff.types import Geometry, InputError
from medsegdiff.writers.segments import Code, Segment

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI points right, anterior, superior; NRRD and DICOM left, posterior, superior."""


def write_seg_nrrd(
    path: str | Path,
    label_map: NDArray[np.integer[Any]],
    geometry: Geometry,
    segments: Sequence[Segment],
) -> None:
    """Writes named, coloured segments that 3D Slicer opens as a segmentation.

    Args:
        path: ends in ``.seg.nrrd``; missing folders are created.
        label_map: ``geometry.shape``, whole numbers in [0, 255]; a 2D one becomes one slice.
        geometry: the space of the source.
        segments: the classes of the label map.

    Raises:
        InputError: if slicerio is not installed.
        ValueError: if the shape is not that of the geometry.
    """
    try:
        import slicerio
    except ModuleNotFoundError as error:
        raise InputError(
            "--format nrrd",
            "needs the package slicerio, which is not installed",
            "Install it: pip install 'medsegdiff[slicer]'",
        ) from error
    if label_map.shape != geometry.shape:
        raise ValueError(f"label_map must have shape {geometry.shape}; got {label_map.shape}")
    voxels = np.atleast_3d(label_map).astype(np.uint8)
    segmentation = {
        "voxels": voxels,
        "ijkToLPS": RAS_TO_LPS @ geometry.affine,
        "containedRepresentationNames": ["Binary labelmap"],
        "segments": [_described(s, voxels.shape) for s in segments],
    }
    with written_aside(path) as aside:
        slicerio.write_segmentation(str(aside), segmentation)


def _described(segment: Segment, shape: tuple[int, ...]) -> dict[str, Any]:
    """A segment in slicerio's words."""
    return {
        "id": f"Segment_{segment.value}",
        "name": segment.name,
        "color": list(segment.colour),
        "labelValue": segment.value,
        "layer": 0,
        "extent": [edge for size in shape for edge in (0, size - 1)],
        "terminology": {
            "contextName": "medsegdiff",
            "category": _slicer_code(segment.category),
            "type": _slicer_code(segment.type),
        },
    }


def _slicer_code(code: Code) -> list[str]:
    """Slicer names the scheme first."""
    return [code.scheme, code.value, code.meaning]
