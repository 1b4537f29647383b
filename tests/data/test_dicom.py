from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from medsegdiff.data.dicom import case_id, find_series, read_series
from medsegdiff.data.phantom import write_dicom_series
from medsegdiff.data.transforms import LoadCased, load
from medsegdiff.types import InputError

SHARED = [
    "mr_brain/11-T1post-18670",
    "mr_brain/26401-T1prereg-52906",
    "mr_brain/36468-FLAIRreg-58706",
    "mr_brain/37830-T2reg-78532",
    "mr_brain/11_HCropVolume",
    "ct_liver/ct-3slice",
]
AFFINE = np.eye(4)
AFFINE[:3, :3] = Rotation.from_euler("xyz", [10, 25, -15], degrees=True).as_matrix() * [1, 2, 3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A series of six slices."""
    return made(tmp_path / "series")


def made(
    folder: Path, number: int = 1, shape: tuple[int, ...] = (5, 4, 6), **settings: Any
) -> Path:
    volume = np.random.default_rng(number).integers(0, 1000, shape).astype(np.uint16)
    write_dicom_series(volume, AFFINE, folder, number=number, **settings)
    return folder


def edit(file: Path, change: Callable[[Any], object]) -> None:
    header = pydicom.dcmread(file)
    change(header)
    header.save_as(file)


def edit_all(folder: Path, change: Callable[[Any], object]) -> None:
    for file in folder.iterdir():
        edit(file, change)


def damage(file: Path, keyword: str) -> None:
    """Make a field's kind ``U?``, which no reader knows."""
    tag = pydicom.tag.Tag(keyword)
    start = struct.pack("<HH", tag.group, tag.element)
    kind = re.escape(start) + rb"[A-Z]{2}"
    content, count = re.subn(kind, lambda _: start + b"U?", file.read_bytes())
    assert count == 1
    file.write_bytes(content)


def fails(folder: Path, rule: str) -> None:
    with pytest.raises(InputError, match=rule) as caught:
        read_series(find_series(folder)[0])
    assert str(folder) in caught.value.subject
    assert "\n" not in str(caught.value)


def canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image = nib.as_closest_canonical(nib.Nifti1Image(array.astype(np.float32), affine))
    return image.get_fdata(), image.affine


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
        assert [len(one.files) for one in series] == [6, 6, 6]

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
        assert len(find_series(folder)[0].files) == 6

    @pytest.mark.parametrize("tag", ["StudyInstanceUID", "SeriesInstanceUID", "Modality"])
    def test_damaged_field_does_not_stop_the_search(self, tmp_path: Path, tag: str) -> None:
        made(tmp_path / "good", 1)
        for file in made(tmp_path / "bad", 2).iterdir():
            damage(file, tag)
        assert 1 in [one.number for one in find_series(tmp_path)]

    def test_damaged_beginning_is_no_dicom(self, folder: Path) -> None:
        content = bytearray((folder / "0005.dcm").read_bytes())
        assert content[138:140] == b"\4\0"  # length of the first field, a number
        content[138] = 3
        (folder / "0005.dcm").write_bytes(content)
        assert len(find_series(folder)[0].files) == 5

    def test_one_file(self, folder: Path) -> None:
        volume, geometry = read_series(find_series(folder / "0002.dcm")[0])
        assert volume.shape == geometry.shape == (5, 4, 1)
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


class TestReadSeries:
    def test_file_names_do_not_matter(self, folder: Path) -> None:
        expected, where = read_series(find_series(folder)[0])
        for name, file in zip("fcbeda", sorted(folder.iterdir()), strict=True):
            file.rename(folder / name)
        volume, geometry = read_series(find_series(folder)[0])
        np.testing.assert_array_equal(volume, expected)
        np.testing.assert_array_equal(geometry.affine, where.affine)

    def test_rescaling_of_each_slice_is_applied(self, folder: Path) -> None:
        expected, _ = read_series(find_series(folder)[0])

        def rescale(header: Any) -> None:
            header.RescaleSlope = 0.5 * header.InstanceNumber
            header.RescaleIntercept = -1024

        edit_all(folder, rescale)
        volume, _ = read_series(find_series(folder)[0])
        np.testing.assert_allclose(volume, expected * 0.5 * np.arange(1, 7) - 1024)

    def test_missing_slice(self, folder: Path) -> None:
        (folder / "0003.dcm").unlink()
        fails(folder, "6.00 mm between slices 3 and 4, elsewhere 3.00 mm")

    def test_two_time_points(self, folder: Path) -> None:
        for file in list(folder.iterdir()):
            shutil.copy(file, folder / f"again_{file.name}")
        fails(folder, "two slices lie at one place")

    def test_slices_out_of_line(self, folder: Path) -> None:
        def shift(header: Any) -> None:
            along = np.array([float(v) for v in header.ImageOrientationPatient[:3]])
            moved = np.array([float(v) for v in header.ImagePositionPatient]) + 0.5 * along
            header.ImagePositionPatient = [f"{value:.8f}" for value in moved]

        edit(folder / "0002.dcm", shift)
        fails(folder, "one straight line")

    def test_mixed_orientation(self, folder: Path) -> None:
        edit(
            folder / "0001.dcm", lambda h: setattr(h, "ImageOrientationPatient", [1, 0, 0, 0, 1, 0])
        )
        fails(folder, "differ in orientation")

    def test_directions_not_at_right_angles(self, folder: Path) -> None:
        edit_all(folder, lambda h: setattr(h, "ImageOrientationPatient", [1, 0, 0, 0.6, 0.8, 0]))
        fails(folder, "right angles")

    def test_mixed_size(self, folder: Path) -> None:
        def shrink(header: Any) -> None:
            header.Rows, header.PixelData = 3, header.PixelData[: -2 * header.Columns]

        edit(folder / "0001.dcm", shrink)
        fails(folder, "differ in size")

    @pytest.mark.parametrize("spacing", [[1, 1.5], [0, 0]])
    def test_mixed_or_no_spacing(self, folder: Path, spacing: list[float]) -> None:
        edit(folder / "0001.dcm", lambda h: setattr(h, "PixelSpacing", spacing))
        fails(folder, "pixel spacing")

    @pytest.mark.parametrize(
        "tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
    )
    def test_missing_geometry(self, folder: Path, tag: str) -> None:
        edit(folder / "0001.dcm", lambda h: delattr(h, tag))
        fails(folder, f"lack {tag}")

    def test_position_of_two_numbers(self, folder: Path) -> None:
        edit(folder / "0001.dcm", lambda h: setattr(h, "ImagePositionPatient", [1, 2]))
        fails(folder, "cannot be understood")

    def test_multi_frame(self, folder: Path) -> None:
        edit_all(folder, lambda h: setattr(h, "NumberOfFrames", 2))
        fails(folder, "multi-frame")

    def test_colour(self, folder: Path) -> None:
        edit_all(folder, lambda h: setattr(h, "SamplesPerPixel", 3))
        fails(folder, "colour")

    def test_pixels_that_are_too_few(self, folder: Path) -> None:
        edit(folder / "0001.dcm", lambda h: setattr(h, "PixelData", b"\0\0"))
        fails(folder, r"file 2 of 6 \(by name\) is truncated")

    def test_truncated_file(self, folder: Path) -> None:
        content = (folder / "0004.dcm").read_bytes()
        (folder / "0004.dcm").write_bytes(content[:-7])
        fails(folder, r"file 5 of 6 \(by name\) is truncated")

    def test_compressed_pixels(self, tmp_path: Path) -> None:
        folder = made(tmp_path / "larger", shape=(18, 16, 3))
        expected, _ = read_series(find_series(folder)[0])

        def compress(header: Any) -> None:
            header.compress(pydicom.uid.RLELossless)

        edit_all(folder, compress)
        volume, _ = read_series(find_series(folder)[0])
        np.testing.assert_array_equal(volume, expected)

    def test_broken_compressed_pixels(self, folder: Path) -> None:
        def pretend(header: Any) -> None:
            header.PixelData = pydicom.encaps.encapsulate([b"nothing of the kind"])
            header["PixelData"].is_undefined_length = True
            header.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless

        edit(folder / "0001.dcm", pretend)
        fails(folder, "pixels of file 2 of 6 .* cannot be read")

    @pytest.mark.parametrize(
        "tag", ["SamplesPerPixel", "ImagePositionPatient", "Columns", "BitsAllocated", "PixelData"]
    )
    def test_field_of_no_known_kind(self, folder: Path, tag: str) -> None:
        damage(folder / "0001.dcm", tag)
        fails(folder, r"its headers cannot be understood \(Unknown Value Representation")

    def test_damaged_identifier_does_not_make_a_volume_of_one_slice(self, folder: Path) -> None:
        for tag in ("StudyInstanceUID", "SeriesInstanceUID"):
            damage(folder / "0005.dcm", tag)
        alone, rest = find_series(folder)
        assert (len(alone.files), len(rest.files)) == (1, 5)
        with pytest.raises(InputError, match="cannot be understood"):
            read_series(alone)

    def test_unknown_transfer_syntax(self, folder: Path) -> None:
        known = pydicom.uid.ExplicitVRLittleEndian.encode()
        content = (folder / "0001.dcm").read_bytes()
        (folder / "0001.dcm").write_bytes(content.replace(known, b"1.2.3".ljust(len(known), b"\0")))
        fails(folder, "cannot be understood .UID is not a transfer syntax")

    @pytest.mark.parametrize(
        ("tag", "value"),
        [
            ("ImagePositionPatient", ["nan", "0", "0"]),
            ("ImagePositionPatient", ["1", "2"]),
            ("PixelSpacing", ["inf", "inf"]),
            ("PixelSpacing", ["1", "1", "1"]),
            ("SliceThickness", "-3"),
        ],
    )
    def test_numbers_that_are_no_place(self, folder: Path, tag: str, value: Any) -> None:
        edit(folder / "0001.dcm", lambda h: setattr(h, tag, value))
        fails(folder / "0001.dcm", f"cannot be understood .*{tag}")


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


class TestLoadCased:
    def test_folder_and_series(self, folder: Path) -> None:
        expected, geometry = read_series(find_series(folder)[0])
        for source in (str(folder), find_series(folder)[0]):
            item = load(LoadCased(), {"image": [source]})
            np.testing.assert_array_equal(item["image"][0], expected)
            np.testing.assert_array_equal(item["image"].affine, geometry.affine)

    def test_two_series_where_one_is_needed(self, tmp_path: Path) -> None:
        made(tmp_path / "a", 1, description="T1")
        made(tmp_path / "b", 2, description="T2")
        with pytest.raises(InputError, match=r"there are 2: 1 \(T1\), 2 \(T2\)"):
            load(LoadCased(), {"image": [tmp_path]})


@pytest.fixture(params=SHARED)
def shared_series(request: pytest.FixtureRequest, shared_data: Path) -> Path:
    path: Path = shared_data / "dicom" / request.param
    if not path.is_dir():
        pytest.skip(f"no {path}")
    return path


def test_agrees_with_simpleitk(shared_series: Path) -> None:
    (series,) = find_series(shared_series)
    volume, geometry = read_series(series)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in geometry.sources])
    image = reader.Execute()
    assert geometry.shape == image.GetSize()
    np.testing.assert_array_equal(volume, sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    for voxel in np.ndindex(2, 2, 2):
        index = [int(v) * (size - 1) for v, size in zip(voxel, geometry.shape, strict=True)]
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose(
            (geometry.affine @ [*index, 1])[:3], lps * [-1, -1, 1], atol=0.01
        )


def test_agrees_with_dcm2niix(shared_series: Path, tmp_path: Path) -> None:
    dcm2niix = pytest.importorskip("dcm2niix")
    command = [dcm2niix.bin, "-z", "n", "-b", "n", "-f", "out", "-o", tmp_path, shared_series]
    subprocess.run(command, check=True, capture_output=True)
    image = nib.load(next(tmp_path.glob("*.nii")))
    volume, geometry = read_series(find_series(shared_series)[0])
    values, affine = canonical(volume, geometry.affine)
    reference, expected = canonical(image.get_fdata(), image.affine)
    np.testing.assert_allclose(affine, expected, atol=1e-3)
    np.testing.assert_allclose(values, reference, rtol=1e-5)


def test_all_shared_series_are_found_and_nothing_else(shared_data: Path) -> None:
    if not (shared_data / "dicom").is_dir():
        pytest.skip("no DICOM among the real data")
    series = find_series(shared_data / "dicom")
    assert sorted(len(one.files) for one in series) == [3, 22, 22, 22, 22, 40]
    assert len({case_id(one, "") for one in series}) == 6
