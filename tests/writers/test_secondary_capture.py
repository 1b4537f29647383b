"""The captures are read back by pydicom: whose they are, where they lie, what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medsegdiff import __version__
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import find_series
from medsegdiff.viz.slice_picture import Line, Outline, magnification
from medsegdiff.writers.secondary_capture import write_secondary_capture
from medsegdiff.writers.segments import Algorithm
from tests.dicom_sources import SHAPE, write_enhanced, write_series

ALGORITHM = Algorithm("tiny", "1.2")


def written(folder: Path, geometry: Geometry) -> tuple[np.ndarray, list[pydicom.Dataset]]:
    grey = np.random.default_rng(3).integers(0, 200, (*SHAPE, 1), dtype=np.uint8)
    image = grey.repeat(3, axis=-1)
    mask = np.zeros(SHAPE, bool)
    mask[2:4, 1:3, 1] = True
    write_secondary_capture(
        folder, "x", image, [Outline(mask, (255, 0, 0))], [Line("1 ml")], geometry, ALGORITHM
    )
    return image, [pydicom.dcmread(file) for file in sorted(folder.glob("x_*.dcm"))]


@pytest.mark.parametrize("source", ["series", "enhanced"])
def test_each_pixel_lies_where_the_image_has_it(tmp_path: Path, source: str) -> None:
    place = tmp_path / source
    geometry = write_series(place) if source == "series" else write_enhanced(place)
    image, captures = written(tmp_path / "out", geometry)
    to_voxel, times, seen = np.linalg.inv(geometry.affine), magnification(*SHAPE[:2]), set()
    assert len(captures) == SHAPE[2]
    for one in captures:
        along = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
        first = np.array(one.ImagePositionPatient, float)
        rows, columns = map(float, one.PixelSpacing)
        row, column = 5 * times + 3, 4 * times + 7  # somewhere in pixel (5, 4), outside of the mask
        lps = first + along[1] * rows * row + along[0] * columns * column
        voxel = (to_voxel @ [-lps[0], -lps[1], lps[2], 1.0])[:3]
        assert tuple(np.rint(voxel[:2])) == (4, 5)
        k = int(np.rint(voxel[2]))
        assert voxel[2] == pytest.approx(k, abs=1e-3)
        np.testing.assert_array_equal(one.pixel_array[row, column], image[4, 5, k])
        red = (one.pixel_array[: SHAPE[1] * times] == (255, 0, 0)).all(axis=-1)
        assert red.any() == (k == 1)
        seen.add(k)
    assert seen == set(range(SHAPE[2]))


def test_what_a_viewer_is_told(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    _, captures = written(tmp_path / "out", geometry)
    sources = [pydicom.dcmread(file) for file in geometry.sources]
    assert len({one.SeriesInstanceUID for one in captures}) == 1
    assert captures[0].SeriesInstanceUID != sources[0].SeriesInstanceUID
    assert len({one.SOPInstanceUID for one in captures}) == SHAPE[2]
    for number, (one, source) in enumerate(zip(captures, sources, strict=True), start=1):
        assert one.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
        for keyword in ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SliceThickness"):
            assert one[keyword].value == source[keyword].value
        assert (one.BurnedInAnnotation, one.ContentQualification) == ("YES", "RESEARCH")
        assert one.ImageType[0] == "DERIVED" and "tiny 1.2" in one.DerivationDescription
        assert one.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert one.InstanceNumber == number and "RESEARCH" in one.SeriesDescription
        assert list(one.PatientOrientation) == ["L", "F"]
        for element in one.iterall():  # every value is one that its kind allows
            if isinstance(element.value, str):
                pydicom.valuerep.validate_value(element.VR, element.value, pydicom.config.RAISE)


def test_they_are_never_taken_for_images_to_segment(tmp_path: Path) -> None:
    written(tmp_path / "out", write_series(tmp_path / "series"))
    assert len(find_series(tmp_path)) == 1
    with pytest.raises(InputError, match="a colour image"):
        find_series(tmp_path / "out")


def test_it_needs_dicom(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="refers to the DICOM images"):
        written(tmp_path, Geometry(SHAPE, np.eye(4)))
    assert not list(tmp_path.glob("*.dcm"))


def test_all_that_names_a_capture(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    for file in geometry.sources:
        header = pydicom.dcmread(file)
        header.Laterality, header.PositionReferenceIndicator = "R", "XY"
        header.LossyImageCompression = "01"
        header.save_as(file)
    _, captures = written(tmp_path / "out", geometry)
    times = magnification(*SHAPE[:2])
    for number, (one, file) in enumerate(zip(captures, geometry.sources, strict=True), start=1):
        said = {
            "Manufacturer": "medsegdiff",
            "ManufacturerModelName": "medsegdiff",
            "SoftwareVersions": __version__,
            "DeviceSerialNumber": "0",
            "SeriesNumber": 9020,
            "InstanceNumber": number,
            "SeriesDescription": "Segmentation, burnt in (RESEARCH)",
            "DerivationDescription": "Outlines and volumes of an automatic segmentation by tiny 1.2"
            f", burnt in; magnified {times} times",
            "PhotometricInterpretation": "RGB",
            "BitsAllocated": 8,
            "Laterality": "R",
            "PositionReferenceIndicator": "XY",
            "LossyImageCompression": "01",
        }
        assert {keyword: one[keyword].value for keyword in said} == said
        np.testing.assert_allclose(
            np.array(one.PixelSpacing, float) * times,
            np.array(pydicom.dcmread(file).PixelSpacing, float),
        )
        (item,) = one.SourceImageSequence
        source = pydicom.dcmread(file)
        assert item.ReferencedSOPClassUID == source.SOPClassUID
        assert "ReferencedFrameNumber" not in item
        (purpose,) = item.PurposeOfReferenceCodeSequence
        assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("121322", "DCM")
        assert one.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        f"x_{number:04d}.dcm" for number in range(1, SHAPE[2] + 1)
    ]


def test_a_frame_of_many_is_named_by_its_number(tmp_path: Path) -> None:
    order = (2, 0, 3, 1)
    geometry = write_enhanced(tmp_path / "mr.dcm", order)
    _, captures = written(tmp_path / "out", geometry)
    found = [one.SourceImageSequence[0].ReferencedFrameNumber for one in captures]
    assert found == [1, 2, 3, 4]
    assert all(not one.get("Laterality") and "LossyImageCompression" not in one for one in captures)


def test_outlines_have_their_own_colours_and_dashes(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    image = np.zeros((*SHAPE, 3), np.uint8)
    first, second = np.zeros((2, *SHAPE), bool)
    first[1:3, 1:5], second[4:6, 1:5] = True, True
    outlines = [Outline(first, (255, 0, 0)), Outline(second, (0, 255, 0), dashed=True)]
    notes = write_secondary_capture(
        tmp_path / "out", "y", image, outlines, [Line("1 ml")], geometry
    )
    assert notes == ()
    shown = pydicom.dcmread(tmp_path / "out" / "y_0001.dcm").pixel_array
    times = magnification(*SHAPE[:2])
    red, green = ((shown == colour).all(axis=-1) for colour in ((255, 0, 0), (0, 255, 0)))
    columns = [np.flatnonzero(one.any(axis=0)) // times for one in (red, green)]
    assert set(columns[0]) <= {0, 1, 2, 3} and set(columns[1]) <= {3, 4, 5, 6}
    assert 0 < green.sum() < red.sum()  # dashes have gaps
