"""Mosaics are volumes, placed as nibabel and dcm2niix place them, or are refused."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom import find_series, read_series
from tests.data.dicom.files import OBLIQUE, RAS, edit, made, phantom_volume, stored

COUNT, ACROSS = 9, 3


def mosaic(folder: Path, count: int | None = COUNT, normal: np.ndarray | None = None) -> Path:
    """The nine slices of the phantom on one plane.

    Args:
        folder: to write.
        count: number of slices that the file names.
        normal: direction of the slices in the vendor's own header.
    """
    files = sorted(made(folder).iterdir())
    slices = [stored(pydicom.dcmread(file)) for file in files]
    rows = [np.hstack(slices[k : k + ACROSS]) for k in range(0, COUNT, ACROSS)]
    for file in files[1:]:
        file.unlink()

    def change(header: pydicom.Dataset) -> None:
        height, width = slices[0].shape
        axes = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
        between_rows, between_columns = map(float, header.PixelSpacing)
        position = np.array(header.ImagePositionPatient, float)
        position -= axes[0] * between_columns * width * (ACROSS - 1) / 2
        position -= axes[1] * between_rows * height * (ACROSS - 1) / 2
        header.ImagePositionPatient = [f"{v:.10g}" for v in position]
        header.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
        header.Rows, header.Columns = height * ACROSS, width * ACROSS
        header.PixelData = np.vstack(rows).tobytes()
        header.SpacingBetweenSlices = header.SliceThickness
        if count is not None:
            header.private_block(0x19, "SIEMENS MR HEADER", create=True).add_new(0x0A, "US", count)
        if normal is not None:
            block = header.private_block(0x29, "SIEMENS CSA HEADER", create=True)
            block.add_new(0x10, "OB", vendors_header(normal))

    edit(files[0], change)
    return folder


def vendors_header(normal: np.ndarray) -> bytes:
    """A header of the vendor's second version, with the direction of the slices alone."""
    content = b"SV10\4\3\2\1" + struct.pack("<2I", 1, 77)
    content += struct.pack("<64si4s3i", b"SliceNormalVector", 3, b"FD", 4, 3, 77)
    for value in normal:
        item = f"{value:.8f}".encode().ljust(16, b"\0")
        content += struct.pack("<4i", 16, 16, 77, 16) + item
    return content


def normal_of(affine: np.ndarray) -> np.ndarray:
    axes = (RAS @ affine)[:3, :3]
    normal = np.cross(axes[:, 0], axes[:, 1])
    return np.asarray(normal / np.linalg.norm(normal))


def test_is_a_volume(tmp_path: Path) -> None:
    (series,) = find_series(mosaic(tmp_path / "a"))
    values, geometry = read_series(series)
    np.testing.assert_array_equal(values, phantom_volume())
    np.testing.assert_allclose(geometry.affine, OBLIQUE, atol=1e-5)
    assert geometry.sources == series.files


def test_agrees_with_nibabel(tmp_path: Path) -> None:
    (file,) = mosaic(tmp_path / "a").iterdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nibabel.nicom.dicomwrappers import MosaicWrapper
    _, geometry = read_series(find_series(file)[0])
    theirs = MosaicWrapper(pydicom.dcmread(file), {"tags": {}}, n_mosaic=COUNT)
    np.testing.assert_allclose((RAS @ geometry.affine)[:3, 3], theirs.image_position, atol=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_runs_to_the_side_that_the_vendor_says(tmp_path: Path, sign: int) -> None:
    folder = mosaic(tmp_path / "a", normal=sign * normal_of(OBLIQUE))
    values, geometry = read_series(find_series(folder)[0])
    for k in (0, 4, 8):
        expected = OBLIQUE @ [0, 0, sign * k, 1]
        index = k if sign > 0 else COUNT - 1 - k
        np.testing.assert_allclose(geometry.affine @ [0, 0, index, 1], expected, atol=1e-5)
        np.testing.assert_array_equal(values[..., index], phantom_volume()[..., k])


def test_of_an_unknown_number_of_slices_is_refused(tmp_path: Path) -> None:
    (series,) = find_series(mosaic(tmp_path / "a", count=None))
    with pytest.raises(InputError, match="MOSAIC of slices, and does not say of how many"):
        read_series(series)
