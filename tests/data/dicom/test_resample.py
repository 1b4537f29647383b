"""Uneven slices: refused, or resampled on request, and said so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import find_series, read_series
from tests.data.dicom.files import edit_all, made, move_along_normal, phantom_volume, tilt


def resampled(folder: Path) -> tuple[np.ndarray, Geometry]:
    (series,) = find_series(folder)
    with pytest.raises(InputError, match=r"not evenly spaced: .* \(--uneven resample\)"):
        read_series(series)
    return read_series(replace(series, uneven="resample"))


def test_missing_slice_is_interpolated(tmp_path: Path) -> None:
    folder = made(tmp_path / "a")
    expected = phantom_volume().astype(np.float32)
    _, whole = read_series(find_series(folder)[0])
    (folder / "0004.dcm").unlink()
    values, geometry = resampled(folder)
    np.testing.assert_allclose(geometry.affine, whole.affine, atol=1e-6)
    np.testing.assert_allclose(np.delete(values, 4, axis=2), np.delete(expected, 4, axis=2))
    np.testing.assert_allclose(values[..., 4], (expected[..., 3] + expected[..., 5]) / 2)
    (note,) = geometry.notes
    assert "3.00 to 6.00 mm): resampled from 8 to 9, 3.00 mm apart" in note


def test_uneven_slices_keep_their_place(tmp_path: Path) -> None:
    """Values that grow by 10 a millimetre do so after resampling, wherever slices lay."""
    folder = made(tmp_path / "a")
    moved = [0.0, 0.5, -0.4, 0.0, 0.7, 0.0, -0.6, 0.3, 0.0]

    def change(header: object) -> None:
        k = int(header.InstanceNumber) - 1  # type: ignore[attr-defined]
        move_along_normal(header, moved[k])
        value = round(10 * (3 * k + moved[k]))
        header.PixelData = np.full((12, 14), value, np.uint16).tobytes()  # type: ignore[attr-defined]

    _, whole = read_series(find_series(folder)[0])
    values, geometry = resampled(edit_all(folder, change))
    spacing = geometry.spacing[2]
    assert spacing == pytest.approx(24 / 11) and geometry.shape[2] == 12
    np.testing.assert_allclose(values[3, 3], 10 * spacing * np.arange(12), atol=0.01)
    last = geometry.affine @ [0, 0, 11, 1]
    np.testing.assert_allclose(last, whole.affine @ [0, 0, 8, 1], atol=1e-6)


def test_tilted_and_uneven(tmp_path: Path) -> None:
    folder = tilt(made(tmp_path / "a"))
    _, whole = read_series(find_series(folder)[0])
    (folder / "0004.dcm").unlink()
    _, geometry = resampled(folder)
    np.testing.assert_allclose(geometry.affine, whole.affine, atol=1e-6)
    assert len(geometry.notes) == 2


def test_even_slices_are_left_as_they_are(tmp_path: Path) -> None:
    (series,) = find_series(made(tmp_path / "a"))
    values, geometry = read_series(replace(series, uneven="resample"))
    np.testing.assert_array_equal(values, phantom_volume())
    assert geometry.notes == ()


def test_two_stacks_far_apart_are_not_filled(tmp_path: Path) -> None:
    folder = made(tmp_path / "a")
    edit_all(folder, lambda h: move_along_normal(h, 200.0 * (h.InstanceNumber > 5)))
    (series,) = find_series(folder)
    with pytest.raises(InputError, match="even spacing would make 76 of 9"):
        read_series(replace(series, uneven="resample"))
