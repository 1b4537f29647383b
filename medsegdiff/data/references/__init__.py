"""Segmentations and structure sets of DICOM as label maps on an image's grid."""

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
    """Whether a source is a DICOM SEG or RTSTRUCT file, or a folder that holds one and no more."""
    return isinstance(source, str | Path) and kind_of(Path(source).expanduser()) is not None


def read_structures(
    source: str | Path, image: Geometry, structures: Structures
) -> NDArray[np.uint8]:
    """The label map that a SEG or RTSTRUCT draws, on the grid of its image.

    What a file draws is placed by its own coordinates; neither the order of its frames nor of the
    image's slices matters, nor how it refers to the image's files.

    Args:
        source: a file for which :func:`is_reference` holds.
        image: the grid, of a DICOM series or of another file in the same patient coordinates.
        structures: which names make up which class.

    Returns:
        (*image.shape) class numbers; 0 where nothing is drawn.

    Raises:
        InputError: damaged; another frame of reference or grid than the image's; drawn where the
            image has no slice; a class that the file does not have; classes that overlap.
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
