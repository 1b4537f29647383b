"""Open DICOM files, and the fields of their headers that find and place a volume."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pydicom.valuerep import VR

from medsegdiff.core.errors import InputError
from medsegdiff.core.limits import check_inflation

TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "PatientID",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "NominalScannedPixelSpacing",
    "ImagerPixelSpacing",
    "SequenceOfUltrasoundRegions",
    "FrameOfReferenceUID",
    "SliceThickness",
    "SpacingBetweenSlices",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "RescaleSlope",
    "RescaleIntercept",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    # fields that distinguish the acquisitions in one series
    "EchoTime",
    "EchoNumbers",
    "ComplexImageComponent",
    "DiffusionBValue",
    "DiffusionGradientOrientation",
    "InversionTime",
    "FlipAngle",
    "KVP",
    "ConvolutionKernel",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
    "TriggerTime",
]
SIEMENS_B_VALUE = 0x0019100C
SIEMENS_DIRECTION = 0x0019100E
SIEMENS_MOSAIC = 0x0019100A
SIEMENS_IMAGE_HEADER = 0x00291010
GE_B_VALUE = 0x00431039
GE_DIRECTION = (0x001910BB, 0x001910BC, 0x001910BD)
PRIVATE = (SIEMENS_B_VALUE, SIEMENS_DIRECTION, SIEMENS_MOSAIC, GE_B_VALUE, *GE_DIRECTION)
"""Fields of the vendors' own."""
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META_BYTES = 2**12  # beyond the meta header of any file
_KINDS = {str(kind) for kind in VR if len(kind) == 2}
DAMAGED = (
    InvalidDicomError,
    BytesLengthException,
    NotImplementedError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    OSError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""Exceptions of pydicom when it reads a damaged file, or later decodes a damaged field."""


def read_header(file: Path) -> Any:
    """The fields ``TAGS`` of a file's header; they are decoded on access.

    Raises:
        DAMAGED: the file is no DICOM file, or is broken.
    """
    tags: list[Any] = [*TAGS, *PRIVATE]
    return open_dicom(file, stop_before_pixels=True, specific_tags=tags)


def open_dicom(file: Path, **options: Any) -> Any:
    """A file's data set, whether it has the preamble and the meta header of a DICOM file or not.

    Some archives keep the bare data set. How it is encoded is then found out, and stands in
    ``file_meta`` as if the file had said it.

    Args:
        file: Path of the file.
        options: Options of ``pydicom.dcmread``.

    Raises:
        DAMAGED: the file is no DICOM file, or is broken.
    """
    try:
        dataset = _read(file, options)
    except InvalidDicomError:
        if not _begins_like_a_data_set(file):
            raise
        dataset = pydicom.dcmread(file, force=True, **options)
        if not dataset:
            raise
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


class _DeflatedFile(io.BufferedReader):
    """A file that refuses to be read to its end, as pydicom inflates it, if that is too much."""

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes.

        Raises:
            ValueError: all of them would inflate to far more than images do.
        """
        content = super().read(size)
        if size is None or size < 0:
            _check_deflated(content)
        return content


def _check_deflated(content: bytes) -> None:
    inflater, rest, size = zlib.decompressobj(-zlib.MAX_WBITS), content, 0
    while rest and not inflater.eof:
        size += len(inflater.decompress(rest, 2**24))
        rest = inflater.unconsumed_tail
        try:
            check_inflation("", len(content), size)
        except InputError as error:  # the caller knows the name that may be shown
            raise ValueError(f"{error.rule}. {error.remedy}") from None


def _read(file: Path, options: Mapping[str, Any]) -> Any:
    with file.open("rb") as stream:
        deflated = _DEFLATED in stream.read(_META_BYTES)
    if not deflated:
        return pydicom.dcmread(file, **options)
    with _DeflatedFile(io.FileIO(file)) as stream:
        return pydicom.dcmread(stream, **options)


def is_marked_dicom(file: Path) -> bool:
    """Whether a file has DICOM's mark behind its preamble, or begins as a data set does."""
    try:
        with file.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM" or _begins_like_a_data_set(file)
    except OSError:
        return False


def _begins_like_a_data_set(file: Path) -> bool:
    """Whether the first element is of group 2 or 8, of a known kind, and no longer than the file.

    Implicit elements name no kind; of big endian ones, which are retired, none is known.
    """
    with file.open("rb") as stream:
        first = stream.read(8)
    if len(first) < 8:
        return False
    group, element, length = struct.unpack("<HHI", first)
    if group not in (0x0002, 0x0008) or element > 0x0100:
        return False
    explicit = first[4:6].decode("latin-1") in _KINDS
    return explicit or length <= min(file.stat().st_size - 8, 0x400)


def text(header: Any, tag: str) -> str:
    """A header's field as text; empty where it is missing, empty or damaged."""
    try:
        value = header.get(tag)
        return "" if value is None else str(value).strip()
    except DAMAGED:
        return ""


def whole_number(header: Any, tag: str) -> int | None:
    """A header's field as a whole number; None where it is missing, empty or damaged."""
    found = text(header, tag)
    return int(found) if re.fullmatch(r"[+-]?\d+", found) else None
