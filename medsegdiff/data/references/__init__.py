"""DICOM segmentations (SEG) and structure sets (RTSTRUCT) as label maps on an image's grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.references.opening import kind_of, open_reference, read_frame_of_reference
from medsegdiff.data.references.rtstruct import RtStruct
from medsegdiff.data.references.seg import Seg
from medsegdiff.data.references.structures import Overlap, Structures

__all__ = ["Overlap", "Structures", "is_reference", "read_structures"]


def is_reference(source: object) -> bool:
    """Whether a source is a DICOM SEG or RTSTRUCT file, or a folder whose only file is one."""
    return isinstance(source, str | Path) and kind_of(Path(source).expanduser()) is not None


def read_structures(
    source: str | Path, image: Geometry, structures: Structures
) -> NDArray[np.uint8]:
    """The label map of a SEG or RTSTRUCT, on the grid of its image.

    Structures are placed by the file's own coordinates. The order of its frames or of the image's
    slices does not matter, nor does its list of the image's files.

    Args:
        source: Path of a file for which :func:`is_reference` holds.
        image: Grid of a DICOM series, or of another file in the same patient coordinates.
        structures: Names of the structures of each class.

    Returns:
        Class numbers (*image.shape) uint8; 0 where no structure is.

    Raises:
        InputError: the file is damaged, has another frame of reference or grid than the image,
            marks places where the image has no slice, lacks a class, or has classes that overlap.
    """
    path = Path(source)
    dataset = open_reference(path)
    reader = Seg if kind_of(path) == "SEG" else RtStruct
    with_three_axes = Geometry(
        (*image.shape, 1)[:3], image.affine, image.sform, image.qform, image.sources
    )
    try:
        file = reader(dataset, path, with_three_axes, read_frame_of_reference(image))
        labels = structures.label_map(file, path)
    except InputError:
        raise
    except _DAMAGED as error:
        rule = f"its content cannot be understood ({_shortened(error)})"
        raise InputError(path, rule, "Export it again") from None
    return labels.reshape(image.shape)


_DAMAGED: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)


def _shortened(error: Any) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
