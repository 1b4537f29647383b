"""Frames: the planes of a series, whether each has a file of its own or many share one.

An enhanced multi-frame object (DICOM PS3.3, C.7.6.16) holds the fields of its frames in functional
groups, shared or per frame, some under another name than that of a single image. What vendors keep
there of their own may be under a standard name and mean something else: it is not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement

from medsegdiff.data.dicom.headers import read_header
from medsegdiff.data.dicom.mosaic import Tile, is_mosaic, tiles_of

_OTHER_NAMES = {
    "EchoTime": "EffectiveEchoTime",
    "ImageType": "FrameType",
    "TemporalPositionIdentifier": "TemporalPositionIndex",
    "AcquisitionDateTime": "FrameAcquisitionDateTime",
    "InversionTime": "InversionTimes",
    "TriggerTime": "NominalCardiacTriggerDelayTime",
    "AcquisitionNumber": "FrameAcquisitionNumber",
    "PixelSpacing": "NominalScannedPixelSpacing",
}
"""Other names of fields: in enhanced objects, and in secondary captures."""
_LEAST_BYTES = 8  # of a frame: fewer than an item's head, or than any image has
_OF_OTHER_IMAGES = {"ReferencedImageSequence", "DerivationImageSequence", "SourceImageSequence"}


@dataclass(frozen=True, eq=False)
class Frame:
    """One plane of a series.

    Attributes:
        file: Path of the file that holds it.
        number: Number of the frame in the file, from 0.
        header: Header of the file.
        groups: Fields of the frame's functional groups, by keyword.
        count: Number of frames in the file.
        tile: The frame's place on a mosaic; None where it is the whole plane.
    """

    file: Path
    number: int
    header: Any
    groups: dict[str | int | None, Any] = field(default_factory=dict)
    count: int = 1
    tile: Tile | None = None

    def get(self, tag: str | int) -> Any:
        """A field of the frame, else of the file; None where it is missing."""
        for name in (tag, _OTHER_NAMES.get(str(tag))):
            if name in self.groups:
                return self.groups[name].value
        if not isinstance(tag, str):
            return getattr(self.header.get(tag), "value", None)
        found = self.header.get(tag)
        return found if found is not None else self.header.get(_OTHER_NAMES.get(tag, tag))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        whole = int(self.header.Rows), int(self.header.Columns)
        return whole if self.tile is None else self.tile.size


def read_frames(file: Path) -> list[Frame]:
    """All frames of a file.

    Raises:
        DAMAGED: the file is no DICOM file, or is broken.
    """
    return frames_of(file, read_header(file))


def frames_of(file: Path, header: Any) -> list[Frame]:
    """All frames of a file whose header is known.

    Raises:
        DAMAGED: the header is broken.
    """
    if is_mosaic(header):
        return [_tile_frame(file, n, header, t) for n, t in enumerate(tiles_of(file, header))]
    count = int(header.get("NumberOfFrames") or 1)
    if count > 1 and count > file.stat().st_size // _LEAST_BYTES:
        raise ValueError(f"{count} frames, more than the file can hold")
    items = header.get("PerFrameFunctionalGroupsSequence")
    if not items:
        return [Frame(file, n, header, count=count) for n in range(count)]
    if len(items) != count:
        raise ValueError(f"{count} frames, but {len(items)} functional groups")
    shared: dict[str | int | None, Any] = {}
    for item in header.get("SharedFunctionalGroupsSequence") or ():
        shared |= _fields(item)
    return [Frame(file, n, header, shared | _fields(i), count) for n, i in enumerate(items)]


def vectors(frames: Sequence[Frame], tag: str, length: int) -> NDArray[np.float64]:
    """Values (frames, length) float64 of a field of all frames.

    Args:
        frames: Frames to read.
        tag: Keyword of the field.
        length: Number of values that the field must have.

    Raises:
        ValueError: the field is missing, has another length, or is not finite.
    """
    found = [frame.get(tag) for frame in frames]
    if any(value is None or np.size(value) != length for value in found):
        raise ValueError(f"{tag} must have {length} finite values")
    values = np.array(found, dtype=np.float64).reshape(len(found), length)
    if not np.isfinite(values).all():
        raise ValueError(f"{tag} must have {length} finite values")
    return values


def _fields(item: Any) -> dict[str | int | None, Any]:
    """The fields in the first item of each sequence of a functional group, nested ones too.

    Of fields of one name, that which is nested the least counts.
    """
    found: dict[str | int | None, Any] = {}
    nested: dict[str | int | None, Any] = {}
    for element in item:
        if element.tag.is_private or element.keyword in _OF_OTHER_IMAGES:
            continue
        if element.VR != "SQ":
            found[element.keyword] = element
        elif element.value:
            nested |= _fields(element.value[0])
    return nested | found


def _tile_frame(file: Path, number: int, header: Any, tile: Tile) -> Frame:
    position = DataElement("ImagePositionPatient", "FD", list(tile.position))
    return Frame(file, number, header, {"ImagePositionPatient": position}, tile=tile)
