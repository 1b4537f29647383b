"""Distinguish DICOM objects that are images to segment from all others."""

from __future__ import annotations

import re
from typing import Any

from pydicom.uid import UID

from medsegdiff.data.dicom.headers import DAMAGED, text

_NOT_IMAGES = {"SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "PR", "KO", "REG", "DOC", "FID", "RWV"}
_NOT_IMAGE_CLASSES = (
    "Segmentation",
    "Parametric Map",
    "Structured Report",
    "Presentation State",
    "RT ",
    "Raw Data",
    "Encapsulated",
    "Waveform",
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and .1 to .4 below it, of many frames
_LOCALISER_TYPES = {"LOCALIZER", "LOCALISER", "SCOUT", "TOPOGRAM"}
_SCREEN_TYPES = {"SCREEN SAVE", "SCREENSAVE", "SCREEN_SAVE", "CSA REPORT", "REPORT", "DOSE_INFO"}
_LOCALISER_NAMES = re.compile(r"locali[sz]er|scout|topogram|scanogram|surview|survey", re.I)


def is_object(header: Any) -> bool:
    """Whether a header is of an object that belongs to a series (a DICOMDIR does not)."""
    return "SeriesInstanceUID" in header


def why_left_out(header: Any) -> str:
    """The reason why an object is no image to segment; empty if it is one."""
    kind = UID(text(header, "SOPClassUID"))
    name = kind.name if kind.name != kind else ""  # known to the standard
    types = {word.upper() for word in _words(header, "ImageType")}
    modality = text(header, "Modality").upper()
    if modality in _NOT_IMAGES or name.startswith(_NOT_IMAGE_CLASSES) or " SR " in name:
        return f"no image but {name.removesuffix(' Storage') or modality}"
    if "Rows" not in header or "Columns" not in header:
        return "a report or another object without an image"
    captured = kind == _SECONDARY_CAPTURE or kind.startswith(_SECONDARY_CAPTURE + ".")
    if captured and not _has_plane(header):
        return "a secondary capture without a place in the body"
    if types & _LOCALISER_TYPES:
        return "a localiser"
    if types & _SCREEN_TYPES:
        return "a saved screen"
    if text(header, "SamplesPerPixel") not in ("", "1"):
        return "a colour image, where one value per pixel is needed"
    return ""


def is_cut_short(header: Any) -> bool:
    """Whether an image ends before its size, or an object before it says what it is."""
    kind = UID(text(header, "SOPClassUID"))
    if not is_object(header):
        return kind.name == kind or kind.name.endswith("Image Storage")
    is_whole = "Rows" in header and "Columns" in header
    return not is_whole and (not kind or kind.name.endswith("Image Storage"))


def _has_plane(header: Any) -> bool:
    """Whether an image lies in the body, whatever its class is called."""
    try:
        groups = header.get("PerFrameFunctionalGroupsSequence")
        if groups:
            return "PlanePositionSequence" in groups[0]
    except DAMAGED:  # which reading the series names
        return True
    spacings = ("PixelSpacing", "NominalScannedPixelSpacing")
    place = text(header, "ImagePositionPatient") and text(header, "ImageOrientationPatient")
    return bool(place) and any(text(header, tag) for tag in spacings)


def is_called_localiser(header: Any) -> bool:
    """Whether the description names a localiser; some series with such a name are volumes."""
    return bool(_LOCALISER_NAMES.search(text(header, "SeriesDescription")))


def _words(header: Any, tag: str) -> list[str]:
    try:
        value = header.get(tag) or []
        return [value] if isinstance(value, str) else [str(word).strip() for word in value]
    except DAMAGED:
        return []
