"""Open a DICOM SEG or RTSTRUCT file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom.headers import DAMAGED, is_marked_dicom, open_dicom

Kind = Literal["SEG", "RTSTRUCT"]

LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
_KINDS: dict[str, Kind] = {
    str(SegmentationStorage): "SEG",
    LABEL_MAP_STORAGE: "SEG",
    str(RTStructureSetStorage): "RTSTRUCT",
}


def kind_of(path: Path) -> Kind | None:
    """Kind of a file, or of the only file of a folder, by its content; None: neither kind."""
    try:
        file = _only_file(path)
        if file is None or not _has_preamble(file):
            return None
        header = open_dicom(file, specific_tags=["SOPClassUID"], stop_before_pixels=True)
        return _KINDS.get(str(header.get("SOPClassUID")))
    except DAMAGED:
        return None


def open_reference(path: Path) -> Any:
    """The whole data set of a file, or of the only file of a folder.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return open_dicom(_only_file(path.expanduser()) or path)
    except DAMAGED as error:
        rule = f"cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})"
        raise InputError(path, rule, "Export it again") from None


def read_frame_of_reference(image: Geometry) -> str:
    """FrameOfReferenceUID of a DICOM image; empty where it has none, or is not DICOM."""
    if not image.sources or not is_marked_dicom(image.sources[0]):
        return ""
    header = open_dicom(image.sources[0], specific_tags=["FrameOfReferenceUID"])
    return str(header.get("FrameOfReferenceUID") or "")


def check_frame_of_reference(own: str, images: str, path: Path) -> None:
    """Refuse a frame of reference other than the image's, where both are known.

    Args:
        own: FrameOfReferenceUID of the reference; empty if unknown.
        images: FrameOfReferenceUID of the image; empty if unknown.
        path: Path of the reference, for messages.

    Raises:
        InputError: the two differ.
    """
    if own and images and own != images:
        rule = "has another frame of reference than its image: their coordinates do not compare"
        remedy = "Give the image that it was drawn on, or register the two and convert it to NIfTI"
        raise InputError(path, rule, remedy)


def _only_file(path: Path) -> Path | None:
    """The file itself, or the only visible file of a folder; None if there are others."""
    if not path.is_dir():
        return path
    files = [file for file in path.iterdir() if file.is_file() and file.name[0] != "."]
    return files[0] if len(files) == 1 else None


def _has_preamble(file: Path) -> bool:
    """Whether a file begins as DICOM files do (PS3.10, 7.1), a fast first check."""
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"
