"""What does not form one regular volume is refused, by a line that says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom import find_series, read_series
from medsegdiff.data.images import read_image
from medsegdiff.data.transforms import LoadCased, load
from tests.data.dicom.files import Change, add, damage, edit, edit_all, enhance, halve, made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A series of nine slices."""
    return made(tmp_path / "series")


def fails(folder: Path, rule: str) -> None:
    with pytest.raises(InputError, match=rule) as caught:
        read_series(find_series(folder)[0])
    assert str(folder) in caught.value.subject
    assert "\n" not in str(caught.value)


class TestReadSeries:
    def test_file_names_do_not_matter(self, folder: Path) -> None:
        expected, where = read_series(find_series(folder)[0])
        for name, file in zip("fcbedaigh", sorted(folder.iterdir()), strict=True):
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
        np.testing.assert_allclose(volume, expected * 0.5 * np.arange(1, 10) - 1024)

    def test_missing_slice(self, folder: Path) -> None:
        (folder / "0003.dcm").unlink()
        fails(folder, "6.00 mm between slices 3 and 4, elsewhere 3.00 mm")

    def test_slices_out_of_line(self, folder: Path) -> None:
        def shift(header: Any) -> None:
            along = np.array([float(v) for v in header.ImageOrientationPatient[:3]])
            moved = np.array([float(v) for v in header.ImagePositionPatient]) + 0.5 * along
            header.ImagePositionPatient = [f"{value:.8f}" for value in moved]

        edit(folder / "0002.dcm", shift)
        fails(folder, "one straight line")

    def test_every_slice_of_another_orientation(self, folder: Path) -> None:
        def turn(header: Any) -> None:
            angle = 0.1 * header.InstanceNumber
            row = [np.cos(angle), np.sin(angle), 0]
            header.ImageOrientationPatient = [f"{v:.8f}" for v in (*row, 0, 0, -1)]

        edit_all(folder, turn)
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

    def test_multi_frame_without_places(self, folder: Path) -> None:
        edit_all(folder, lambda h: setattr(h, "NumberOfFrames", 2))
        fails(folder, "frames have no place of their own")

    def test_functional_groups_that_are_too_few(self, folder: Path) -> None:
        enhance(folder, NumberOfFrames=8)
        fails(folder, "8 frames, but 9 functional groups")

    def test_frame_without_a_place(self, folder: Path) -> None:
        enhance(folder)
        edit_all(folder, lambda h: h.PerFrameFunctionalGroupsSequence[3].clear())
        fails(folder, "lack ImagePositionPatient")

    @pytest.mark.parametrize("value", ["0", "nan"])
    def test_slope_that_is_none(self, folder: Path, value: str) -> None:
        edit(folder / "0001.dcm", lambda h: setattr(h, "RescaleSlope", value))
        fails(folder, f"cannot be understood .RescaleSlope is {value}")

    def test_pixels_that_are_too_few(self, folder: Path) -> None:
        edit(folder / "0001.dcm", lambda h: setattr(h, "PixelData", b"\0\0"))
        fails(folder, r"file 2 of 9 \(by name\) is truncated")

    def test_truncated_file(self, folder: Path) -> None:
        content = (folder / "0004.dcm").read_bytes()
        (folder / "0004.dcm").write_bytes(content[:-7])
        fails(folder, r"file 5 of 9 \(by name\) is truncated")

    def test_broken_compressed_pixels(self, folder: Path) -> None:
        def pretend(header: Any) -> None:
            header.PixelData = pydicom.encaps.encapsulate([b"nothing of the kind"])
            header["PixelData"].is_undefined_length = True
            header.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless

        edit(folder / "0001.dcm", pretend)
        fails(folder, "pixels of file 2 of 9 .* cannot be read")

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
        assert (len(alone.files), len(rest.files)) == (1, 8)
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


def shrink(header: Any) -> None:
    header.Rows, header.PixelData = 3, header.PixelData[: -2 * header.Columns * 9]


class TestRemedies:
    """Images of one series that are no volume together are volumes in folders of their own."""

    @pytest.mark.parametrize(
        ("rule", "change"),
        [
            ("differ in size", shrink),
            ("pixel spacing", lambda h: setattr(h, "PixelSpacing", [2, 2])),
            ("two slices lie at one place", halve),
        ],
        ids=["size", "spacing", "volume"],
    )
    def test_folders_of_their_own(self, rule: str, change: Change, folder: Path) -> None:
        first = sorted(folder.iterdir())
        add(folder, change)
        with pytest.raises(InputError, match=rule) as told:
            read_series(find_series(folder)[0])
        assert "in a folder of its own, and give these one by one" in told.value.remedy
        (folder.parent / "other").mkdir()
        for file in set(folder.iterdir()) - set(first):
            file.rename(folder.parent / "other" / file.name)
        for one in (folder, folder.parent / "other"):
            assert read_series(find_series(one)[0])[0].shape[2] == 9

    def test_one_series_of_several(self, tmp_path: Path) -> None:
        for number in (1, 2):
            for file in made(tmp_path / f"s{number}", number).iterdir():
                file.rename(made_folder(tmp_path / "both") / f"{number}{file.name}")
        with pytest.raises(InputError, match="Put the files of one in a folder of its own"):
            read_image(tmp_path / "both")
        for file in (tmp_path / "both").glob("1*"):
            file.rename(tmp_path / "s1" / file.name)
        assert read_image(tmp_path / "s1")[0].shape == (14, 12, 9)


def made_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


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
        with pytest.raises(InputError, match="there are 2, with numbers 1, 2"):
            load(LoadCased(), {"image": [tmp_path]})
