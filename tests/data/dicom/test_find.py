"""What is found in a folder, what is left out, and what is said of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom import case_id, find_series, read_series
from medsegdiff.data.transforms import LoadCased
from tests.data.dicom.files import (
    Change,
    add,
    compress,
    damage,
    each,
    edit,
    edit_all,
    made,
    plane_affine,
    set_type,
    write_dicomdir,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A series of nine slices."""
    return made(tmp_path / "series")


class TestFindSeries:
    def test_several_series_in_one_folder(self, tmp_path: Path) -> None:
        for number in (3, 1, 2):
            made(tmp_path / f"s{number}", number)
        mixed = tmp_path / "mixed"
        mixed.mkdir()
        for number in (1, 2, 3):
            for file in (tmp_path / f"s{number}").iterdir():
                shutil.move(file, mixed / f"{number}{file.stem}")  # without an ending
        series = find_series(mixed)
        assert [one.number for one in series] == [1, 2, 3]
        assert [len(one.files) for one in series] == [9, 9, 9]

    def test_same_number_in_two_studies(self, tmp_path: Path) -> None:
        made(tmp_path / "a", patient="A")
        made(tmp_path / "b", patient="B")
        assert len({one.study_uid for one in find_series(tmp_path)}) == 2

    @pytest.mark.parametrize("modality", ["SEG", "SR", "RTSTRUCT"])
    def test_other_objects_are_left_out(self, tmp_path: Path, modality: str) -> None:
        made(tmp_path / "image", 1)
        made(tmp_path / "other", 2)
        edit_all(tmp_path / "other", lambda h: setattr(h, "Modality", modality))
        assert [one.number for one in find_series(tmp_path)] == [1]

    def test_other_files_are_left_out(self, folder: Path) -> None:
        (folder / "notes.txt").write_text("no image")
        (folder / "empty.dcm").touch()
        (folder / "half.dcm").write_bytes((folder / "0000.dcm").read_bytes()[:140])
        assert len(find_series(folder)[0].files) == 9

    @pytest.mark.parametrize("tag", ["StudyInstanceUID", "SeriesInstanceUID", "Modality"])
    def test_damaged_field_does_not_stop_the_search(self, tmp_path: Path, tag: str) -> None:
        made(tmp_path / "good", 1)
        for file in made(tmp_path / "bad", 2).iterdir():
            damage(file, tag)
        assert 1 in [one.number for one in find_series(tmp_path)]

    def test_damaged_beginning_is_no_dicom(self, folder: Path) -> None:
        content = bytearray((folder / "0008.dcm").read_bytes())
        assert content[138:140] == b"\4\0"  # length of the first field, a number
        content[138] = 3
        (folder / "0008.dcm").write_bytes(content)
        assert len(find_series(folder)[0].files) == 8

    def test_one_file(self, folder: Path) -> None:
        volume, geometry = read_series(find_series(folder / "0002.dcm")[0])
        assert volume.shape == geometry.shape == (14, 12, 1)
        np.testing.assert_allclose(geometry.spacing, (1, 2, 3))

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            find_series(tmp_path / "nowhere")
        with pytest.raises(InputError, match="holds no DICOM image"):
            find_series(tmp_path)

    @pytest.mark.parametrize("number", ["", None])
    def test_series_without_a_number(self, folder: Path, number: Any) -> None:
        edit_all(folder, lambda h: setattr(h, "SeriesNumber", number))
        assert find_series(folder)[0].number is None


def type_of(*words: str) -> Change:
    return lambda header: setattr(header, "ImageType", list(words))


LEFT_OUT: dict[str, tuple[Change, str]] = {
    "CT scout": (type_of("ORIGINAL", "PRIMARY", "LOCALIZER"), "a localiser"),
    "screen save": (type_of("DERIVED", "SECONDARY", "SCREEN SAVE"), "a saved screen"),
    "secondary capture": (
        each(
            lambda h: set_type(h, pydicom.uid.SecondaryCaptureImageStorage, "OT"),
            lambda h: h.pop("ImagePositionPatient"),
        ),
        "a secondary capture without a place",
    ),
    "report": (
        each(lambda h: set_type(h, pydicom.uid.BasicTextSRStorage, "SR"), lambda h: h.pop("Rows")),
        "no image but Basic Text SR",
    ),
    "presentation state": (
        lambda h: set_type(h, pydicom.uid.GrayscaleSoftcopyPresentationStateStorage, "PR"),
        "no image but Grayscale Softcopy Presentation State",
    ),
    "parametric map": (
        lambda h: set_type(h, pydicom.uid.ParametricMapStorage),
        "no image but Parametric Map",
    ),
    "colour": (lambda h: setattr(h, "SamplesPerPixel", 3), "a colour image"),
    "without an image": (
        each(
            lambda h: set_type(h, pydicom.uid.MRSpectroscopyStorage),
            lambda h: h.pop("Columns"),
        ),
        "without an image",
    ),
}


class TestLeftOut:
    @pytest.mark.parametrize("kind", LEFT_OUT)
    def test_is_told(self, kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        change, reason = LEFT_OUT[kind]
        made(tmp_path / "image", 1, patient="DOE")
        edit_all(made(tmp_path / "DOE_other", 7, patient="DOE"), change)
        assert [one.number for one in find_series(tmp_path)] == [1]
        (told,) = [record.getMessage() for record in caplog.records]
        assert told.startswith(f"{tmp_path}: left out: series 7, ") and reason in told
        assert told.endswith("(9 images)") and "DOE" not in told

    @pytest.mark.parametrize("kind", LEFT_OUT)
    def test_nothing_else_is_there(self, kind: str, tmp_path: Path) -> None:
        change, reason = LEFT_OUT[kind]
        edit_all(made(tmp_path / "other", 7), change)
        with pytest.raises(InputError, match=f"holds no DICOM image: series 7, .*{reason}"):
            find_series(tmp_path)

    def test_localiser_by_name_and_orientation(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        made(tmp_path / "image", 1)
        for number, plane in enumerate(("axial", "sagittal", "coronal")):
            one = made(tmp_path / plane, 2, plane_affine(plane), description="3-plane Localizer")
            add(tmp_path / "axial", lambda h: None, sorted(one.iterdir())[3:6]) if number else None
            shutil.rmtree(one) if number else None
        assert [one.number for one in find_series(tmp_path)] == [1]
        assert "left out: series 2, a localiser (15 images)" in caplog.text

    def test_a_volume_called_scout_stays(self, tmp_path: Path) -> None:
        (series,) = find_series(made(tmp_path / "a", description="AAHead_Scout"))
        assert series.description == "AAHead_Scout"

    def test_scout_within_a_series(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        expected, _ = read_series(find_series(folder)[0])
        scout = sorted(made(folder.parent / "scout", 1, plane_affine("coronal")).iterdir())[:1]
        add(folder, lambda h: None, scout)
        (series,) = find_series(folder)
        assert series.part == "" and "a single image (coronal) (1 image)" in caplog.text
        np.testing.assert_array_equal(read_series(series)[0], expected)


class TestCopies:
    def test_count_once(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        expected, _ = read_series(find_series(folder)[0])
        for file in list(folder.iterdir())[:4]:
            shutil.copy(file, folder / f"again_{file.name}")
        (series,) = find_series(folder)
        np.testing.assert_array_equal(read_series(series)[0], expected)
        assert "series 1: passed over 4 files that repeat an image" in caplog.text

    def test_rewritten_or_compressed(self, folder: Path) -> None:
        copy = Path(shutil.copytree(folder, folder.parent / "copy"))
        edit_all(copy, lambda h: setattr(h, "InstitutionName", "elsewhere"))
        compress(copy, "JPEG2000Lossless")
        for file in copy.iterdir():
            uid = pydicom.dcmread(file).SOPInstanceUID
            assert uid == pydicom.dcmread(folder / file.name).SOPInstanceUID
            shutil.move(file, folder / f"again_{file.name}")
        assert len(find_series(folder)[0].files) == 9

    @pytest.mark.parametrize("tag", ["ImagePositionPatient", "PixelData"])
    def test_that_differ_are_refused(self, folder: Path, tag: str) -> None:
        shutil.copy(folder / "0004.dcm", folder / "again.dcm")
        value = [1, 2, 3] if tag == "ImagePositionPatient" else bytes(2 * 14 * 12)
        edit(folder / "again.dcm", lambda h: setattr(h, tag, value))
        with pytest.raises(InputError, match="1 of its images are there twice, with different"):
            read_series(find_series(folder)[0])

    def test_one_identifier_for_all(self, folder: Path) -> None:
        """An archive that has lost them: the places still tell the images apart."""
        expected, _ = read_series(find_series(folder)[0])
        edit_all(folder, lambda h: setattr(h, "SOPInstanceUID", "1.2.3"))
        values, geometry = read_series(find_series(folder)[0])
        np.testing.assert_array_equal(values, expected)
        assert "all its images have one identifier" in geometry.notes[0]

    def test_the_remedy_of_two_contents_works(self, folder: Path) -> None:
        shutil.copy(folder / "0004.dcm", folder / "again.dcm")
        edit(folder / "again.dcm", lambda h: setattr(h, "PixelData", bytes(2 * 14 * 12)))
        with pytest.raises(InputError, match="Keep one of each"):
            read_series(find_series(folder)[0])
        (folder / "again.dcm").unlink()
        read_series(find_series(folder)[0])


class TestSecondaryCapture:
    """What lies in the body is an image, whatever its class is called."""

    @pytest.mark.parametrize("spacing", ["PixelSpacing", "NominalScannedPixelSpacing"])
    def test_with_a_place_is_a_volume(self, folder: Path, spacing: str) -> None:
        expected, where = read_series(find_series(folder)[0])

        def change(header: Any) -> None:
            set_type(header, pydicom.uid.SecondaryCaptureImageStorage, "OT")
            size = header.PixelSpacing
            del header.PixelSpacing
            setattr(header, spacing, size)

        values, geometry = read_series(find_series(edit_all(folder, change))[0])
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_array_equal(geometry.affine, where.affine)


class TestDicomdir:
    def test_stands_for_its_folder(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        directory = write_dicomdir(folder.parent, sorted(folder.iterdir()))
        for given in (directory, folder.parent):
            assert len(find_series(given)[0].files) == 9
        assert "medsegdiff" not in {record.name.partition(".")[0] for record in caplog.records}

    def test_lists_what_is_not_there(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        directory = write_dicomdir(folder.parent, sorted(folder.iterdir()))
        (folder / "0008.dcm").unlink()
        assert len(find_series(directory)[0].files) == 8
        assert "1 of 9 files that its DICOMDIR lists are not there" in caplog.text


class TestNamesInErrors:
    """Files and inner folders may be called after the patient: errors do not name them."""

    def test_what_was_given_and_the_number(self, tmp_path: Path) -> None:
        folder = made(tmp_path / "DOE_JANE", 3)
        (folder / "0003.dcm").unlink()
        (series,) = find_series(tmp_path)
        with pytest.raises(InputError) as caught:
            read_series(series)
        assert caught.value.subject == f"{tmp_path}, series 3"
        assert "DOE" not in str(caught.value)

    def test_zip_stands_for_the_folder_it_was_unpacked_to(self, tmp_path: Path) -> None:
        (series,) = find_series(made(tmp_path / "unpacked", 3), "given.zip")
        assert str(series) == "given.zip, series 3"
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match=r"^given.zip: holds no DICOM"):
            find_series(tmp_path / "empty", "given.zip")

    def test_file(self, folder: Path) -> None:
        (folder / "0001.dcm").rename(folder / "DOE_JANE.dcm")
        edit(folder / "DOE_JANE.dcm", lambda h: setattr(h, "PixelData", b"\0\0"))
        with pytest.raises(InputError) as caught:
            read_series(find_series(folder)[0])
        assert "DOE" not in str(caught.value)

    def test_series_as_an_input_that_does_not_fit(self, tmp_path: Path) -> None:
        (series,) = find_series(made(tmp_path / "a", 4, patient="DOE"))
        with pytest.raises(InputError) as caught:
            LoadCased(channels=2)({"image": [series]})
        assert caught.value.subject == f"{tmp_path / 'a'}, series 4"
        assert "DOE" in series.patient_id
        assert "DOE" not in repr(series)

    def test_series_without_a_number(self, folder: Path) -> None:
        edit_all(folder, lambda h: setattr(h, "SeriesNumber", None))
        assert str(find_series(folder)[0]) == f"{folder}, series ?"


class TestCaseId:
    def test_depends_on_series_and_salt(self, tmp_path: Path) -> None:
        one = find_series(made(tmp_path / "a", 4, patient="DOE"))[0]
        two = find_series(made(tmp_path / "b", 5, patient="DOE"))[0]
        assert case_id(one, "salt") == case_id(one, "salt")
        assert case_id(one, "salt").endswith("_4")
        assert len({case_id(one, "a"), case_id(one, "b"), case_id(two, "a")}) == 3
        assert "DOE" not in case_id(one, "")
