"""Radiographs and ultrasound: planes of pixels, whose size comes from one of several fields."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom import find_series, read_series
from tests.data.dicom.files import (
    Change,
    dataset,
    each,
    edit_all,
    made,
    phantom_volume,
    set_type,
)


def flat(folder: Path, change: Change, images: int = 1, modality: str = "CR") -> Path:
    for file in sorted(made(folder).iterdir())[images:]:
        file.unlink()

    def strip(header: pydicom.Dataset) -> None:
        set_type(header, pydicom.uid.ComputedRadiographyImageStorage, modality)
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"):
            header.pop(tag, None)

    return edit_all(folder, each(strip, change))


def without_spacing(header: pydicom.Dataset) -> None:
    del header.PixelSpacing


def ultrasound(header: pydicom.Dataset) -> None:
    del header.PixelSpacing
    header.SequenceOfUltrasoundRegions = [
        dataset(
            PhysicalUnitsXDirection=3,
            PhysicalUnitsYDirection=3,
            PhysicalDeltaX=0.03,
            PhysicalDeltaY=0.05,
        )
    ]


SIZES: dict[str, tuple[Change, tuple[float, float], str]] = {
    "its own": (lambda h: setattr(h, "PixelSpacing", [0.5, 0.2]), (0.2, 0.5), ""),
    "detector": (
        each(without_spacing, lambda h: setattr(h, "ImagerPixelSpacing", [0.5, 0.2])),
        (0.2, 0.5),
        "at the detector",
    ),
    "ultrasound": (ultrasound, (0.3, 0.5), ""),
    "none": (without_spacing, (1.0, 1.0), "which is a guess"),
}


@pytest.mark.parametrize("size", SIZES)
def test_pixels_and_their_size(size: str, tmp_path: Path) -> None:
    change, spacing, note = SIZES[size]
    (series,) = find_series(flat(tmp_path / "a", change))
    values, geometry = read_series(series)
    np.testing.assert_array_equal(values, phantom_volume()[..., 0])
    assert geometry.shape == (14, 12) and geometry.spacing == pytest.approx(spacing)
    assert note in " ".join(geometry.notes) and bool(note) == bool(geometry.notes)


def test_several_in_a_series_are_several(tmp_path: Path) -> None:
    found = find_series(flat(tmp_path / "a", lambda h: None, images=3))
    assert [series.part for series in found] == ["image 1", "image 2", "image 3"]
    for k, series in enumerate(found):
        np.testing.assert_array_equal(read_series(series)[0], phantom_volume()[..., k])


def test_a_stripped_volume_is_not_taken_for_one(tmp_path: Path) -> None:
    folder = flat(tmp_path / "a", lambda h: set_type(h, pydicom.uid.CTImageStorage, "CT"))
    with pytest.raises(InputError, match="headers lack ImagePositionPatient"):
        read_series(find_series(folder)[0])
