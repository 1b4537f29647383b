"""Uneven slices: refused, or resampled on request, and said so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import find_series, read_series
from tests.data.dicom.files import (
    edit_all,
    made,
    move,
    move_along_normal,
    phantom_volume,
    plane_affine,
    tilt,
)


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


def test_two_spacings_of_a_head(tmp_path: Path) -> None:
    """4 mm through the skull base, 7 mm above, less where the two meet; and a tilted gantry."""
    places = np.cumsum([0, 4, 4, 4, 4, 1.1, 7, 7, 7])
    folder = tilt(made(tmp_path / "a"))

    def change(header: Any) -> None:
        k = int(header.InstanceNumber) - 1
        move_along_normal(header, places[k] - 3 * k)
        value = round(10 * places[k])
        header.PixelData = np.full((12, 14), value, np.uint16).tobytes()
        along = np.array(header.ImageOrientationPatient[3:], float)
        move(header, along * (places[k] - 3 * k) / 3)

    values, geometry = resampled(edit_all(folder, change))
    assert geometry.shape[2] == round(places[-1] / 4) + 1
    expected = np.linspace(0, 10 * places[-1], geometry.shape[2])
    np.testing.assert_allclose(values[3, 3], expected, atol=0.5)


@pytest.mark.parametrize(("decimals", "spacing"), [(1, 0.625), (1, 0.43), (0, 4.25), (2, 0.1875)])
def test_rounded_positions_are_even(decimals: int, spacing: float, tmp_path: Path) -> None:
    affine = plane_affine("axial")
    affine[:3, 2] *= spacing / 3
    folder = made(tmp_path / "a", affine=affine)

    def change(header: Any) -> None:
        place = np.round(np.array(header.ImagePositionPatient, float), decimals)
        header.ImagePositionPatient = [f"{v:g}" for v in place]

    (series,) = find_series(edit_all(folder, change))
    values, geometry = read_series(series)
    np.testing.assert_array_equal(values, phantom_volume())
    assert geometry.spacing[2] == pytest.approx(spacing, abs=10**-decimals / 8)
    assert "rounded to" in geometry.notes[0]


def test_rounding_does_not_hide_a_missing_slice(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", affine=plane_affine("axial"))
    for k in (1, 4, 7):
        (folder / f"{k:04d}.dcm").unlink()
    with pytest.raises(InputError, match="not evenly spaced"):
        read_series(find_series(folder)[0])


def test_stacks_that_cannot_be_filled_are_read_one_by_one_as_advised(tmp_path: Path) -> None:
    folder = made(tmp_path / "a")
    edit_all(folder, lambda h: move_along_normal(h, 200.0 * (h.InstanceNumber > 5)))
    with pytest.raises(InputError, match=r"Put the images of each stack in a folder of its own"):
        read_series(find_series(folder)[0])
    for name, numbers in (("low", range(5)), ("high", range(5, 9))):
        (tmp_path / name).mkdir()
        for k in numbers:
            (folder / f"{k:04d}.dcm").rename(tmp_path / name / f"{k}")
        assert read_series(find_series(tmp_path / name)[0])[0].shape[2] == len(numbers)
