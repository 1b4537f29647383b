"""Mosaics: scanners by Siemens tile the slices of a volume on one plane.

The place of each slice follows from that of the plane, whose centre is that of the first slice;
the vendor's own header says how many slices there are, and to which side they run.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.data.dicom.headers import (
    DAMAGED,
    SIEMENS_IMAGE_HEADER,
    SIEMENS_MOSAIC,
    open_dicom,
)


@dataclass(frozen=True)
class Tile:
    """A slice on the plane of a mosaic.

    Attributes:
        place: Rows and columns of the plane that it takes.
        position: Position (3,) of its first pixel, LPS+ mm.
    """

    place: tuple[slice, slice]
    position: tuple[float, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.place
        return rows.stop - rows.start, columns.stop - columns.start


def is_mosaic(header: Any) -> bool:
    """Whether an image says that it is a mosaic."""
    return "MOSAIC" in [str(word).strip() for word in header.get("ImageType") or ()]


def tiles_of(file: Path, header: Any) -> list[Tile]:
    """The slices of a mosaic, in their order.

    Args:
        file: Path of the file.
        header: Header of the file, as ``read_header`` gives it.

    Raises:
        DAMAGED: the file does not say how many slices there are, or how they lie.
    """
    vendors = _vendors_header(file)
    count = int(_value(header) or (vendors.get("NumberOfImagesInMosaic") or [0])[0])
    if count < 1:
        raise ValueError("it is a MOSAIC of slices, and does not say of how many")
    across = ceil(sqrt(count))
    height, width = int(header.Rows) // across, int(header.Columns) // across
    row, column = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = (float(v) for v in header.PixelSpacing)
    corner = np.array(header.ImagePositionPatient, float)
    corner += row * between_columns * (int(header.Columns) - width) / 2
    corner += column * between_rows * (int(header.Rows) - height) / 2
    step = _normal(row, column, vendors) * _gap(header)
    tiles = []
    for k in range(count):
        top, left = k // across * height, k % across * width
        place = slice(top, top + height), slice(left, left + width)
        tiles.append(Tile(place, tuple(float(v) for v in corner + k * step)))
    return tiles


def _value(header: Any) -> Any:
    """The number of slices by the vendor's field of its own; None where it is missing."""
    value = getattr(header.get(SIEMENS_MOSAIC), "value", None)
    return int.from_bytes(value[:2], "little") if isinstance(value, bytes) else value


def _gap(header: Any) -> float:
    """Distance of the slices in mm."""
    gap = abs(float(header.get("SpacingBetweenSlices") or header.get("SliceThickness") or 0))
    if not 0 < gap < np.inf:
        raise ValueError("it is a MOSAIC of slices, and does not say how far apart they lie")
    return gap


def _normal(
    row: NDArray[np.float64], column: NDArray[np.float64], vendors: dict[str, list[Any]]
) -> NDArray[np.float64]:
    """The direction in which the slices run, by the vendor's header where that says it."""
    normal = np.cross(row, column)
    said = vendors.get("SliceNormalVector", [])
    return -normal if len(said) == 3 and np.dot(said, normal) < 0 else normal


def _vendors_header(file: Path) -> dict[str, list[Any]]:
    """Fields of Siemens' own header of an image; none where there is none, or it is damaged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its readers of DICOM experimental
        from nibabel.nicom import csareader
    try:
        found = open_dicom(file, stop_before_pixels=True, specific_tags=[SIEMENS_IMAGE_HEADER])
        fields = csareader.read(found[SIEMENS_IMAGE_HEADER].value)["tags"]
    except (csareader.CSAReadError, AssertionError, *DAMAGED):
        return {}
    return {name: one["items"] for name, one in fields.items()}
