"""Images that have no place in the body, such as radiographs: pixels of a plane, and their size."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydicom.uid import UID

from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom.frames import Frame
from medsegdiff.data.dicom.headers import DAMAGED, text

_MODALITIES = {"CR", "DX", "MG", "US", "IVUS", "XA", "RF", "IO", "PX", "OP", "OPT", "ES", "XC"}
_CLASSES = ("Computed Radiography", "Digital X-Ray", "Digital Mammography", "Digital Intra-Oral",
            "Ultrasound Image", "X-Ray Angiographic", "X-Ray Radiofluoroscopic",
            "Ophthalmic Photography")  # fmt: skip
_CENTIMETRES = 3  # of a region's PhysicalUnitsXDirection, PS3.3, C.8.5.5.1.15


def is_flat(header: Any) -> bool:
    """Whether an image is of a kind that has no place in the body, and names none."""
    if "ImagePositionPatient" in header or "PerFrameFunctionalGroupsSequence" in header:
        return False
    kind = UID(text(header, "SOPClassUID")).name
    return text(header, "Modality").upper() in _MODALITIES or kind.startswith(_CLASSES)


def flat_geometry(frame: Frame) -> Geometry:
    """The geometry of such an image, (columns, rows), and notes on what its size is taken from.

    Its axes run as those of a photograph, since nothing says how it lies.
    """
    rows, columns = frame.size
    (between_rows, between_columns), note = _pixel_size(frame.header)
    affine = np.diag([between_columns, between_rows, 1.0, 1.0])
    return Geometry((columns, rows), affine, sources=(frame.file,), notes=(note,) if note else ())


def _pixel_size(header: Any) -> tuple[tuple[float, float], str]:
    """Distance of rows and of columns in mm, and a note on it where it is not the image's own."""
    for tag, note in (
        ("PixelSpacing", ""),
        ("ImagerPixelSpacing", "its pixels are measured at the detector, not in the body"),
        ("NominalScannedPixelSpacing", "its pixels are measured on the scanned film"),
    ):
        size = _two_lengths(header.get(tag))
        if size:
            return size, note
    try:
        region = header.SequenceOfUltrasoundRegions[0]
        if region.PhysicalUnitsXDirection == region.PhysicalUnitsYDirection == _CENTIMETRES:
            size = _two_lengths([abs(10 * region.PhysicalDeltaY), abs(10 * region.PhysicalDeltaX)])
            if size:
                return size, ""
    except DAMAGED:
        pass
    note = "it does not say how large its pixels are: they are taken as 1 mm, which is a guess"
    return (1.0, 1.0), note


def _two_lengths(value: Any) -> tuple[float, float] | None:
    try:
        rows, columns = (float(v) for v in value)
    except DAMAGED:
        return None
    return (rows, columns) if 0 < rows < np.inf and 0 < columns < np.inf else None
