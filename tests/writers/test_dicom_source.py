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
from medsegdiff.writers import dicom_source
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


@pytest.mark.parametrize(
    ("kind", "value", "repaired"),
    [
        ("DA", "1950-03-31", "19500331"),
        ("DA", " 1950.03.31 ", "19500331"),
        ("DA", "1950/03/31", "19500331"),
        ("DA", "1950-02-31", ""),
        ("DA", "31-03-1950", ""),
        ("DA", "1950-03-31 noon", ""),
        ("TM", "12:34:56", "123456"),
        ("TM", "12:34", "1234"),
        ("TM", "12:74", ""),
        ("DT", "1950-03-31", ""),
        ("LO", "12:34", ""),
    ],
)
def test_dates_and_times_in_common_notation_are_repaired(
    kind: str, value: str, repaired: str
) -> None:
    assert dicom_source._repaired(kind, value) == repaired


@pytest.mark.parametrize(
    ("keyword", "kind", "value", "valid"),
    [
        ("StudyDate", "DA", None, True),
        ("StudyDate", "DA", "", True),
        ("StudyDate", "DA", "20240229", True),
        ("StudyDate", "DA", "20230229", False),
        ("StudyTime", "TM", "2530", False),
        ("PatientSex", "CS", "M", True),
        ("PatientSex", "CS", "O", True),
        ("PatientSex", "CS", "X", False),
        ("StudyID", "SH", "x" * 16, True),
        ("StudyID", "SH", "x" * 17, False),
        ("OtherPatientIDs", "LO", ["a", "b"], True),
        ("OtherPatientIDs", "LO", ["a", "b" * 65], False),
        ("PatientWeight", "DS", 71.5, True),
        ("PatientName", "PN", "Doe^Jane", True),
        ("PatientName", "PN", "x" * 65, False),
        ("AdmittingDate", "DA", ["20240101", "20241301"], False),
    ],
)
def test_what_is_valid(keyword: str, kind: str, value: Any, valid: bool) -> None:
    assert dicom_source._is_valid(keyword, kind, value) == valid


def slices(*positions: float, **fields: Any) -> list[Any]:
    """Headers of slices at these places in mm along z."""
    found = []
    for number, z in enumerate(positions):
        header = pydicom.Dataset()
        header.ImagePositionPatient = [0.0, 0.0, z]
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.SeriesInstanceUID = "1.2.3"
        for keyword, values in fields.items():
            if values[number] is not None:
                setattr(header, keyword, values[number])
        found.append(header)
    return found


@pytest.mark.parametrize(
    ("positions", "given", "thickness"),
    [
        ((4.0, 0.0, 2.0, 40.0), [None] * 4, "2"),
        ((0.0, 1.25, 3.0), [None, 5.0, None], "1.5"),
        ((7.0,), [None], "1"),
        ((0.0, 1 / 3), [None] * 2, "0.33333"),
    ],
)
def test_a_missing_thickness_is_the_distance_of_most_slices(
    positions: tuple[float, ...], given: list[float | None], thickness: str
) -> None:
    headers, mended = slices(*positions, SliceThickness=given), {}  # type: ignore[var-annotated]
    dicom_source._mend_thickness(headers, mended)
    assert mended == {"SliceThickness": f"missing, taken as {thickness} mm"}
    expected = [float(thickness) if one is None else one for one in given]
    assert [float(one.SliceThickness) for one in headers] == pytest.approx(expected)


def test_a_thickness_that_is_there_is_kept() -> None:
    headers, mended = slices(0.0, 2.0, SliceThickness=[5.0, 5.0]), {}  # type: ignore[var-annotated]
    dicom_source._mend_thickness(headers, mended)
    assert mended == {} and float(headers[0].SliceThickness) == 5.0
    enhanced = slices(0.0)
    enhanced[0].PerFrameFunctionalGroupsSequence = []
    dicom_source._mend_thickness(enhanced, mended)
    assert mended == {} and "SliceThickness" not in enhanced[0]


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        ([None, None], "missing, one was made up"),
        (["1.2", None], "not the same in all images, one was made up"),
        (["1.2", "1.3"], "not the same in all images, one was made up"),
        (["1.2", "1.2"], None),
    ],
)
def test_slices_share_a_frame_of_reference(frames: list[str | None], what: str | None) -> None:
    headers, mended = slices(0.0, 1.0, FrameOfReferenceUID=frames), {}  # type: ignore[var-annotated]
    dicom_source._mend_frame_of_reference(headers, mended)
    assert mended == ({} if what is None else {"FrameOfReferenceUID": what})
    (found,) = {str(one.FrameOfReferenceUID) for one in headers}
    assert (found == "1.2") == (what is None)
    other = slices(0.0, FrameOfReferenceUID=[None])
    other[0].SeriesInstanceUID = "1.2.4"
    dicom_source._mend_frame_of_reference(other, {})
    assert str(other[0].FrameOfReferenceUID) != found  # of another series


@pytest.mark.parametrize("value", ["-3.0", "0", "near", ""])
def test_a_distance_of_slices_that_is_not_positive_is_left_out(value: str) -> None:
    header, mended = pydicom.Dataset(), {}  # type: ignore[var-annotated]
    put("SpacingBetweenSlices", value)(header)
    dicom_source._mend_spacing(header, mended)
    if value:
        assert "SpacingBetweenSlices" not in header
        assert mended == {"SpacingBetweenSlices": "not positive, left out"}
    else:
        assert "SpacingBetweenSlices" in header and mended == {}
    header.SpacingBetweenSlices = "2.5"
    mended.clear()
    dicom_source._mend_spacing(header, mended)
    dicom_source._mend_spacing(pydicom.Dataset(), mended)
    assert float(header.SpacingBetweenSlices) == 2.5 and mended == {}


def test_only_who_is_shown_is_kept_in_the_end() -> None:
    header = pydicom.Dataset()
    kept = {
        "PatientID": "P1",
        "PatientName": "Doe^Jane",
        "AccessionNumber": "A1",
        "StudyInstanceUID": "1.2",
        "Modality": "MR",
    }
    emptied = ("PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime")
    left_out = {"PatientComments": "x", "ClinicalTrialSiteName": "y", "RequestingPhysician": "z"}
    for keyword, value in {**kept, **left_out, "StudyDate": "20240101", "PatientSex": "M"}.items():
        setattr(header, keyword, value)
    dicom_source.without_optional_fields([header])
    assert {keyword: header[keyword].value for keyword in kept} == kept
    for keyword in (*emptied, "ReferringPhysicianName"):
        assert not header[keyword].value, keyword
    assert not any(keyword in header for keyword in left_out)


def test_the_notes_name_field_and_what_became_of_it(tmp_path: Path) -> None:
    def change(header: Any) -> None:
        put("PatientBirthDate", "1950-03-31")(header)
        put("StudyTime", "noon")(header)
        del header.SliceThickness

    geometry = edited(write_series(tmp_path / "a"), change)
    notes = write_binary_seg(tmp_path / "seg.dcm", MASK, geometry, SEGMENTS)
    assert sorted(notes) == [
        "DICOM objects: PatientBirthDate of the images is repaired",
        "DICOM objects: SliceThickness of the images is missing, taken as 3 mm",
        "DICOM objects: StudyTime of the images is left empty",
    ]


def test_an_image_without_a_place_is_told(tmp_path: Path) -> None:
    def change(header: Any) -> None:
        set_type(header, pydicom.uid.ComputedRadiographyImageStorage, "CR")
        del header.ImagePositionPatient

    geometry = edited(write_series(tmp_path / "a"), change)
    with pytest.raises(InputError) as told:
        write_binary_seg(tmp_path / "seg.dcm", MASK, geometry, SEGMENTS)
    assert str(told.value) == (
        "the image: has no place in the body, which a DICOM object has to name. "
        "Choose --format nifti or nrrd"
    )


def test_what_highdicom_refuses_for_good_is_told_without_values(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "a")

    def fail(instances: Any, frames: Any) -> Any:
        raise ValueError("Doe^Jane")

    def lack(instances: Any, frames: Any) -> Any:
        raise AttributeError("no attribute 'Rows'")

    for make, why in ((fail, "a header is not valid"), (lack, "no attribute 'Rows'")):
        with pytest.raises(InputError) as told:
            write_derived(tmp_path / "seg.dcm", MASK, geometry, make)
        assert str(told.value) == (
            f"the image: a DICOM object cannot refer to this series ({why}). "
            "Choose --format nifti or nrrd"
        )
    with pytest.raises(ValueError) as error:
        write_derived(tmp_path / "seg.dcm", MASK[:-1], geometry, fail)
    assert str(error.value) == "array must have shape (7, 6, 4); got (6, 6, 4)"


def test_frames_that_name_their_own_plane_share_that_of_the_first() -> None:
    header, shared, first, second = (pydicom.Dataset() for _ in range(4))
    one, other = pydicom.Dataset(), pydicom.Dataset()
    one.PixelSpacing, other.PixelSpacing = [1, 2], [3, 4]
    first.PixelMeasuresSequence, second.PixelMeasuresSequence = [one], [other]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = [first, second]
    dicom_source._share_plane(header)
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [1, 2]
    assert "PlaneOrientationSequence" not in shared
    assert len(dicom_source._pixel_measures(header)) == 4  # of the image, all, and each frame
    shared.PixelMeasuresSequence = [other]
    dicom_source._share_plane(header)
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [3, 4]


@pytest.mark.parametrize(
    ("keyword", "value", "left", "told"),
    [
        ("AccessionNumber", "x" * 17, "x" * 17, {}),  # says whose image it is
        ("PatientID", "x" * 65, "x" * 65, {}),
        ("StudyID", "x" * 17, None, {"StudyID": "left empty"}),
        ("StudyDate", "2024-01-31", "20240131", {"StudyDate": "repaired"}),
        ("StudyDescription", "x" * 65, "", {"StudyDescription": "left empty"}),
        ("StudyDescription", "x" * 64, "x" * 64, {}),
        ("ImageComments", "x" * 70, "x" * 70, {}),  # of a kind that is not checked
    ],
)
def test_a_field_that_is_mended(
    keyword: str, value: str, left: str | None, told: dict[str, str]
) -> None:
    header, mended = pydicom.Dataset(), {}  # type: ignore[var-annotated]
    put(keyword, value)(header)
    dicom_source._mend(header, pydicom.tag.Tag(keyword), mended)
    assert mended == told
    assert header.get(keyword, "") == left
    private = pydicom.tag.Tag(0x00091001)
    header.add_new(private, "DA", "")
    dicom_source._mend(header, private, mended)
    assert private in header and mended == told
