"""A clicked nodule through the shipped bundle: its size, in scans of other pixels and axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from benchmarks.nodules.chest_phantom import Nodule, chest
from benchmarks.nodules.phantom_sizes import diameter, summary
from medsegdiff.bundle import load_bundle
from medsegdiff.cases import segment
from medsegdiff.core import read_json

CENTRE = (-75.0, 10.0, 0.0)
DIAMETER = 12.0
OTHER = Nodule((-75.0, 24.0, 0.0), 7.0)
AT = "-74.5,9.5,0.5"


def scan(pixel_mm: float) -> nib.Nifti1Image:
    """The part of a chest around a nodule, with another one 14 mm beside it."""
    side = round(60 / pixel_mm)
    nodules = (Nodule(CENTRE, DIAMETER), OTHER)
    image, affine = chest(nodules, pixel_mm, 4.0, (side, side, 5), CENTRE, vessels=0)
    return nib.Nifti1Image(image, affine)


def location(image: nib.Nifti1Image, folder: Path, **settings: Any) -> dict[str, Any]:
    folder.mkdir()
    nib.save(image, folder / "scan.nii.gz")
    options: dict[str, Any] = {"at": AT, "device": "cpu", "members": 4, "place_mm": [41, 41, 20]}
    assert segment(folder / "scan.nii.gz", "lung_nodule_ct", folder, **options, **settings) == {}
    found: dict[str, Any] = read_json(folder / "scan" / "scan_run.json")["location"]
    return found


def size(found: dict[str, Any]) -> float:
    return diameter(found["volume_ml"][""]["nodule"])


def test_size_of_a_nodule_in_pixels_of_two_sizes_and_turned_axes(tmp_path: Path) -> None:
    fine, coarse = (location(scan(mm), tmp_path / f"{mm}") for mm in (0.5, 0.9))
    assert size(fine) == pytest.approx(DIAMETER, rel=0.15)  # the other nodule is not counted
    assert size(coarse) == pytest.approx(size(fine), rel=0.05)
    low, high = (diameter(v) for v in fine["volume_interval_90_ml"][""]["nodule"])
    assert low <= size(fine) <= high
    sagittal = scan(0.9).as_reoriented(np.array([[1, 1], [2, -1], [0, 1]]))  # slices come first
    assert size(location(sagittal, tmp_path / "turned")) == pytest.approx(size(coarse), rel=0.02)


def test_padding_around_the_field_of_view_does_not_matter(tmp_path: Path) -> None:
    image = scan(0.9)
    values = np.asarray(image.dataobj).copy()
    values[:20] = -1024
    plain = nib.Nifti1Image(values, image.affine)
    padded = nib.Nifti1Image(
        np.where(np.arange(len(values))[:, None, None] < 20, -3024, values), image.affine
    )
    a, b = location(plain, tmp_path / "a"), location(padded, tmp_path / "b")
    assert a["volume_ml"] == b["volume_ml"]


@pytest.mark.parametrize(("pixel_mm", "prepared_mm"), [(0.5, 0.68), (0.7, 0.7), (0.95, 0.68)])
def test_only_pixels_far_from_those_of_the_training_are_resampled(
    pixel_mm: float, prepared_mm: float
) -> None:
    parser = load_bundle("lung_nodule_ct").parser("inference", {"device": "cpu"})
    placing = parser.get_parsed_content("placing")
    values = torch.full((1, 6, 70, 40), -3000.0)  # slices come first
    affine = np.array([[0, pixel_mm, 0, 0], [0, 0, pixel_mm, 0], [4.0, 0, 0, 0], [0, 0, 0, 1]])
    image = MetaTensor(values, affine=torch.as_tensor(affine))
    found = Compose(placing.preparation)({"image": image})["image"]
    np.testing.assert_allclose(found.pixdim, [prepared_mm, prepared_mm, 4.0], atol=1e-6)
    assert found.shape[-1] == 6 and found.min() == found.max() == -1024


def test_the_summary_is_over_pixel_sizes() -> None:
    row = {"way": "bundle", "true_mm": 10.0, "slice_mm": 2.5}
    rows = [{**row, "pixel_mm": mm, "found_mm": found} for mm, found in ((0.5, 9.0), (0.9, 12.0))]
    rows.append({**row, "pixel_mm": 0.7, "slice_mm": 5.0, "found_mm": 20.0})
    assert summary(rows)["bundle"]["10 mm"] == {
        "mean_ratio": 1.05,
        "least_ratio": 0.9,
        "greatest_ratio": 1.2,
    }
