"""The headers of the images that a DICOM object is made from, with what is odd in them mended.

highdicom copies the patient's and the study's attributes, and refuses values that are not valid. An
odd one must not cost the object: it is repaired where its meaning is plain, else left empty, and
named in a note.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom import config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.errors import InvalidDicomError
from pydicom.valuerep import DA, DT, TM, validate_value

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom.flat import is_flat
from medsegdiff.data.dicom.headers import DAMAGED, open_dicom, text

SUBJECT = "the image"  # of errors: its files and folders may be called after the patient
OTHER_FORMATS = "Choose --format nifti or nrrd"

_TYPE_2 = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate",
           "StudyTime", "AccessionNumber", "ReferringPhysicianName")  # fmt: skip
_IDENTITY = {"PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID", "SOPInstanceUID",
             "SOPClassUID", "SeriesInstanceUID", "FrameOfReferenceUID"}  # fmt: skip
"""Fields that say whose image it is: they are kept as they are, since nothing else says it."""
_CHECKED = {
    0x0008: {"DA", "TM", "DT", "SH", "LO", "PN"},
    0x0010: {"DA", "TM", "DT", "AS", "CS", "SH", "LO", "PN", "DS", "IS"},
    0x0012: {"DA", "TM", "DT", "CS", "SH", "LO"},
    0x0020: {"SH", "LO"},
    0x0032: {"DA", "TM", "SH", "LO", "PN"},
}
"""Groups of which fields are copied, and the kinds of value that are checked there."""
_PARSED = {"DA": DA, "TM": TM, "DT": DT}
_TEXT = {"SH", "LO", "PN", "ST", "LT", "UT", "UC"}
_SEXES = ("M", "F", "O")


def read_sources(files: Sequence[Path]) -> tuple[list[Any], dict[str, str]]:
    """The headers of the files, and what was mended in them.

    Args:
        files: Paths of the images, one a slice, or one of many frames.

    Returns:
        The headers, and for each field that was mended what became of it.

    Raises:
        InputError: an image is not DICOM, has no place in the body, or shares its identifier.
    """
    mended: dict[str, str] = {}
    instances = [_read(file, mended) for file in files]
    if not instances:
        raise not_dicom(SUBJECT)
    if any(is_flat(one) for one in instances):
        rule = "has no place in the body, which a DICOM object has to name"
        raise InputError(SUBJECT, rule, OTHER_FORMATS)
    if len({text(one, "SOPInstanceUID") for one in instances}) < len(instances):
        rule = "holds several images of one identifier: a DICOM object could not name the right one"
        raise InputError(SUBJECT, rule, OTHER_FORMATS)
    _mend_frame_of_reference(instances, mended)
    _mend_thickness(instances, mended)
    return instances, mended


def without_optional_fields(instances: Sequence[Any]) -> None:
    """Leave out what highdicom copies, but for the fields that say whose image it is."""
    for instance in instances:
        for element in list(instance.keys()):
            keyword = pydicom.datadict.keyword_for_tag(element)
            if element.group in (0x0010, 0x0012, 0x0032) and keyword not in _IDENTITY:
                del instance[element]
        for keyword in _TYPE_2:
            if keyword not in _IDENTITY:
                setattr(instance, keyword, None)


def not_dicom(subject: object) -> InputError:
    """The error of a DICOM object that is wanted of something other than DICOM images."""
    return InputError(
        subject,
        "a DICOM object refers to the DICOM images it was made from, and this is none",
        f"{OTHER_FORMATS}, or give the DICOM series",
    )


def _read(file: Path, mended: dict[str, str]) -> Any:
    """The header of one image, with the attributes that are copied, empty where missing."""
    try:
        instance = open_dicom(file, stop_before_pixels=True)
    except InvalidDicomError:
        raise not_dicom(SUBJECT) from None
    _mend_characters(instance, mended)
    for tag in list(instance.keys()):
        if tag.group in _CHECKED:
            _mend(instance, tag, mended)
    for keyword in _TYPE_2:
        if keyword not in instance:
            setattr(instance, keyword, None)
    if "PixelSpacing" not in instance and "NominalScannedPixelSpacing" in instance:
        instance.PixelSpacing = instance.NominalScannedPixelSpacing
    if "PerFrameFunctionalGroupsSequence" in instance:
        _share_plane(instance)
    for measures in _pixel_measures(instance):
        _mend_spacing(measures, mended)
    return instance


def _mend(instance: Any, tag: Any, mended: dict[str, str]) -> None:
    """Repair or empty a field whose value is not valid."""
    keyword = pydicom.datadict.keyword_for_tag(tag)
    if not keyword or keyword in _IDENTITY:
        return
    try:
        element = instance[tag]
        if element.VR not in _CHECKED[tag.group] or _is_valid(keyword, element.VR, element.value):
            return
        repaired = _repaired(element.VR, str(element.value))
    except DAMAGED:
        repaired = ""
    del instance[tag]
    if repaired:
        setattr(instance, keyword, repaired)
    elif keyword in _TYPE_2:
        setattr(instance, keyword, None)
    mended[keyword] = "repaired" if repaired else "left empty"


def _is_valid(keyword: str, kind: str, value: Any) -> bool:
    if value is None or value == "":
        return True
    several = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    if keyword == "PatientSex":
        return value in _SEXES
    try:
        for one in several:
            validate_value(kind, one if kind == "PN" else str(one), config.RAISE)
            if kind in _PARSED and str(one):
                _PARSED[kind](str(one))
    except (ValueError, TypeError):
        return False
    return True


def _repaired(kind: str, value: str) -> str:
    """A date or a time as DICOM writes it, if the value is one in common notation; else nothing."""
    if kind not in ("DA", "TM"):
        return ""
    pattern = r"(\d{4})[-./](\d\d)[-./](\d\d)" if kind == "DA" else r"(\d\d):(\d\d)(?::(\d\d))?"
    found = re.fullmatch(pattern, value.strip())
    plain = "".join(filter(None, found.groups())) if found else ""
    return plain if plain and _is_valid("", kind, plain) else ""


def _mend_characters(instance: Any, mended: dict[str, str]) -> None:
    """Text of a character set that nobody knows is taken as UTF-8, else as Latin 1."""
    said = instance.get("SpecificCharacterSet")
    if not said:
        instance.pop("SpecificCharacterSet", None)  # highdicom reads an empty one as a wrong one
        return
    terms = [said] if isinstance(said, str) else list(said)
    if all(term in python_encoding for term in terms):
        return
    raw = {tag: instance.get_item(tag).value for tag in list(instance.keys()) if _is_text(tag)}
    known = {tag: value for tag, value in raw.items() if isinstance(value, bytes)}
    try:
        b"".join(known.values()).decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = "latin-1"
    for tag, value in known.items():
        plain = value.decode(encoding).strip("\0 ")
        instance[tag] = pydicom.DataElement(tag, dictionary_VR(tag), plain)
    instance.SpecificCharacterSet = "ISO_IR 192"
    mended["SpecificCharacterSet"] = f"not known, its text is taken as {encoding}"


def _is_text(tag: Any) -> bool:
    try:
        return not tag.is_private and dictionary_VR(tag) in _TEXT
    except KeyError:
        return False


def _mend_frame_of_reference(instances: Sequence[Any], mended: dict[str, str]) -> None:
    """A frame of reference for images that name none, or each their own: the series' own."""
    named = {text(one, "FrameOfReferenceUID") for one in instances}
    if len(named) == 1 and "" not in named:
        return
    series = text(instances[0], "SeriesInstanceUID")
    made_up = pydicom.uid.generate_uid(entropy_srcs=["frame of reference", series])
    for one in instances:
        one.FrameOfReferenceUID = made_up
    what = "missing" if named == {""} else "not the same in all images"
    mended["FrameOfReferenceUID"] = f"{what}, one was made up"


def _mend_thickness(instances: Sequence[Any], mended: dict[str, str]) -> None:
    """A thickness for slices that name none, which derived series leave out: their distance."""
    lacking = [one for one in instances if not text(one, "SliceThickness")]
    if not lacking or "PerFrameFunctionalGroupsSequence" in instances[0]:
        return
    axes = np.array(instances[0].ImageOrientationPatient, float).reshape(2, 3)
    places = [np.array(one.ImagePositionPatient, float) for one in instances]
    gaps = np.diff(np.sort(np.stack(places) @ np.cross(*axes)))
    thickness = f"{np.median(gaps) if len(gaps) else 1.0:.5g}"
    for one in lacking:
        one.SliceThickness = thickness
    mended["SliceThickness"] = f"missing, taken as {thickness} mm"


def _pixel_measures(instance: Any) -> list[Any]:
    """The places where an image says the distance of its slices."""
    groups = [
        *(instance.get("SharedFunctionalGroupsSequence") or ()),
        *(instance.get("PerFrameFunctionalGroupsSequence") or ()),
    ]
    return [instance, *(item for one in groups for item in one.get("PixelMeasuresSequence") or ())]


def _mend_spacing(measures: Any, mended: dict[str, str]) -> None:
    try:
        value = measures.get("SpacingBetweenSlices")
        if value in (None, "") or float(value) > 0:
            return
    except DAMAGED:
        pass
    del measures["SpacingBetweenSlices"]
    mended["SpacingBetweenSlices"] = "not positive, left out"


def _share_plane(instance: Any) -> None:
    """Where each frame says orientation and spacing by itself, says them for all.

    highdicom looks for them there alone. That they are the same is seen when the pixels are
    placed, by each frame's own.
    """
    shared = instance.SharedFunctionalGroupsSequence[0]
    first = instance.PerFrameFunctionalGroupsSequence[0]
    for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if name not in shared and name in first:
            setattr(shared, name, first[name].value)
