"""The fields of DICOM headers that are needed to find and place a volume."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

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
    "SliceThickness",
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
GE_B_VALUE = 0x00431039
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
    tags: list[Any] = [*TAGS, SIEMENS_B_VALUE, GE_B_VALUE]
    return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)


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
