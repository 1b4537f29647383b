"""Odd headers of the images cost no DICOM object: fields are repaired or left empty, and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import find_series, read_series
from medsegdiff.writers.dicom_derived import write_derived
from medsegdiff.writers.dicom_seg import _segmentation, write_binary_seg, write_fractional_seg
from medsegdiff.writers.nifti import write_nifti
from medsegdiff.writers.nrrd import write_seg_nrrd
from medsegdiff.writers.parametric_map import write_variance_map
from medsegdiff.writers.segments import MEDSEGDIFF, segments_of
from tests.data.dicom.files import as_ct, edit_all, made, set_type
from tests.dicom_sources import SHAPE, write_enhanced, write_series

SEGMENTS = segments_of({0: "background", 1: "Liver"}, {})
MASK = np.random.default_rng(0).integers(0, 2, SHAPE)


def edited(geometry: Geometry, change: Callable[[Any], object]) -> Geometry:
    for file in geometry.sources:
        header = pydicom.dcmread(file)
        change(header)
        header.save_as(file)
    return geometry


def put(keyword: str, value: str) -> Callable[[Any], object]:
    """A value as it is in the file, valid or not."""
    tag = pydicom.tag.Tag(keyword)
    kind = pydicom.datadict.dictionary_VR(tag)
    padded = value.encode("latin-1") + b" " * (len(value) % 2)

    def change(header: Any) -> None:
        raw = pydicom.dataelem.RawDataElement(tag, kind, len(padded), padded, 0, False, True)
        header._dict[tag] = raw

    return change


ODD = {
    ("PatientBirthDate", "1950"): "",
    ("PatientBirthDate", "***"): "",
    ("PatientBirthDate", "19500231"): "",
    ("PatientBirthDate", "1950-03-31"): "19500331",
    ("StudyDate", "ANON"): "",
    ("StudyTime", "12:34:56"): "123456",
    ("StudyTime", "12:34"): "1234",
    ("StudyTime", "noon"): "",
    ("PatientSex", "UNKNOWN"): "",
    ("PatientAge", "71"): None,
    ("PatientWeight", "heavy"): None,
    ("StudyID", "a very long identifier of a study"): "",
}


@pytest.mark.parametrize(("keyword", "value"), ODD)
def test_a_field_is_repaired_or_left_empty_and_named(
    keyword: str, value: str, tmp_path: Path
) -> None:
    geometry = edited(write_series(tmp_path / "series"), put(keyword, value))
    for number, write in enumerate((
        lambda path: write_binary_seg(path, MASK, geometry, SEGMENTS),
        lambda path: write_fractional_seg(path, MASK[None] * 0.5, geometry, SEGMENTS),
        lambda path: write_variance_map(path, MASK * 0.1, geometry, SEGMENTS[0]),
    )):  # fmt: skip
        notes = write(tmp_path / f"{number}.dcm")
        found = pydicom.dcmread(tmp_path / f"{number}.dcm")
        expected = ODD[keyword, value]
        assert (found.get(keyword) or "") == (expected or "")
        assert found.PatientID == "P1"
        if expected is not None:  # what is no field of the object need not be told
            assert any(keyword in note for note in notes)
        assert value not in " ".join(notes)


def test_a_valid_header_has_no_notes(tmp_path: Path) -> None:
    geometry = edited(write_series(tmp_path / "a"), put("PatientBirthDate", "19500331"))
    assert write_binary_seg(tmp_path / "seg.dcm", MASK, geometry, SEGMENTS) == ()
    assert pydicom.dcmread(tmp_path / "seg.dcm").PatientBirthDate == "19500331"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_an_unknown_character_set(encoding: str, tmp_path: Path) -> None:
    name = "Müller^Jörg".encode(encoding).decode("latin-1")

    def change(header: Any) -> None:
        put("SpecificCharacterSet", "ISO_IR 999")(header)
        put("PatientName", name)(header)

    geometry = edited(write_series(tmp_path / "a"), change)
    notes = write_binary_seg(tmp_path / "seg.dcm", MASK, geometry, SEGMENTS)
    assert pydicom.dcmread(tmp_path / "seg.dcm").PatientName == "Müller^Jörg"
    assert "SpecificCharacterSet" in notes[0] and encoding in notes[0]


@pytest.mark.parametrize("change", ["missing", "one by one"])
def test_a_frame_of_reference_is_made_up(change: str, tmp_path: Path) -> None:
    def edit(header: Any) -> None:
        header.FrameOfReferenceUID = f"1.2.{header.InstanceNumber}"
        if change == "missing":
            del header.FrameOfReferenceUID

    geometry = edited(write_series(tmp_path / "a"), edit)
    found = []
    for name in ("one", "two"):
        notes = write_binary_seg(tmp_path / f"{name}.dcm", MASK, geometry, SEGMENTS)
        assert "FrameOfReferenceUID" in notes[0] and "made up" in notes[0]
        found.append(pydicom.dcmread(tmp_path / f"{name}.dcm").FrameOfReferenceUID)
    assert found[0] == found[1] != ""  # viewers lay what shares it over each other


@pytest.mark.parametrize("enhanced", [False, True])
def test_a_negative_distance_of_slices(enhanced: bool, tmp_path: Path) -> None:
    def negate(header: Any) -> None:
        groups = header.get("SharedFunctionalGroupsSequence")
        measures = groups[0].PixelMeasuresSequence[0] if groups else header
        measures.SpacingBetweenSlices = "-3.0"

    source = write_enhanced(tmp_path / "a.dcm") if enhanced else write_series(tmp_path / "a")
    notes = write_binary_seg(tmp_path / "seg.dcm", MASK, edited(source, negate), SEGMENTS)
    shared = pydicom.dcmread(tmp_path / "seg.dcm").SharedFunctionalGroupsSequence[0]
    assert float(shared.PixelMeasuresSequence[0].get("SpacingBetweenSlices", 3.0)) > 0
    assert "SpacingBetweenSlices" in notes[0]


def test_a_header_that_nothing_else_mends_keeps_names_alone(tmp_path: Path) -> None:
    """Whatever highdicom refuses, whose image it is stays."""

    def change(header: Any) -> None:
        put("PatientComments", "x")(header)
        header.PatientName, header.ReferringPhysicianName = "Doe^Jane", "House"

    geometry = edited(write_series(tmp_path / "a"), change)

    def make(instances: Any, frames: Any) -> Any:
        if instances[0].get("PatientComments"):
            raise ValueError("of a kind that nobody thought of")
        kind: Any = "BINARY"
        return _segmentation(instances, frames, segments=SEGMENTS, kind=kind, algorithm=MEDSEGDIFF)

    (note,) = write_derived(tmp_path / "seg.dcm", MASK.astype(np.uint8), geometry, make)
    found = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (found.PatientName, found.PatientID) == ("Doe^Jane", "P1")
    assert "only names and identifiers are kept" in note


def test_secondary_captures_with_a_place(tmp_path: Path) -> None:
    """As SimpleITK writes them: the spacing under another name, no thickness, no frame."""

    def change(header: Any) -> None:
        set_type(header, pydicom.uid.SecondaryCaptureImageStorage, "OT")
        header.NominalScannedPixelSpacing = header.PixelSpacing
        for tag in ("PixelSpacing", "SliceThickness", "FrameOfReferenceUID"):
            delattr(header, tag)

    geometry = edited(write_series(tmp_path / "a"), change)
    notes = write_binary_seg(tmp_path / "seg.dcm", MASK, geometry, SEGMENTS)
    assert any("SliceThickness" in note and "3 mm" in note for note in notes)


def test_bare_data_sets(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "a")
    for file in geometry.sources:
        header = pydicom.dcmread(file)
        start = len(file.read_bytes()) - _length(header)
        file.write_bytes(file.read_bytes()[start:])
    assert write_binary_seg(tmp_path / "seg.dcm", MASK, geometry, SEGMENTS) == ()


def _length(header: Any) -> int:
    stream = pydicom.filebase.DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(stream, header)
    return len(stream.getvalue())


class TestRemedies:
    """What is refused is written by the formats that the message names."""

    def follow(self, folder: Path, rule: str, out: Path) -> None:
        values, geometry = read_series(find_series(folder)[0])
        mask = np.zeros(values.shape, np.uint8)
        with pytest.raises(InputError, match=rule) as told:
            write_binary_seg(out / "seg.dcm", mask, geometry, SEGMENTS)
        assert told.value.remedy.startswith("Choose --format nifti or nrrd")
        write_seg_nrrd(out / "a.seg.nrrd", mask, geometry, SEGMENTS)
        write_nifti(out / "a.nii.gz", mask, geometry, dtype="uint8", description="mask")
        assert not (out / "seg.dcm").exists() and (out / "a.seg.nrrd").exists()

    def test_one_identifier_for_all(self, tmp_path: Path) -> None:
        folder = edit_all(
            as_ct(made(tmp_path / "a")), lambda h: setattr(h, "SOPInstanceUID", "1.2")
        )
        self.follow(folder, "several images of one identifier", tmp_path)

    def test_radiograph(self, tmp_path: Path) -> None:
        folder = made(tmp_path / "a")
        for file in sorted(folder.iterdir())[1:]:
            file.unlink()

        def change(header: Any) -> None:
            set_type(header, pydicom.uid.ComputedRadiographyImageStorage, "CR")
            del header.ImagePositionPatient

        self.follow(edit_all(folder, change), "has no place in the body", tmp_path)
