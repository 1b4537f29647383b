"""Images of a folder, an image, or a data set, for MONAI's data sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from medsegdiff.cases import image_items
from tests.conftest import MakeNifti


def test_each_image_of_a_folder_is_an_item(make_nifti: MakeNifti, tmp_path: Path) -> None:
    files = [make_nifti(name) for name in ("b.nii.gz", "a.nii")]
    make_nifti("below/c.nii.gz")
    make_nifti(".hidden.nii.gz")
    (tmp_path / "notes.txt").write_text("no image")
    items = image_items(tmp_path)
    assert items == [
        {"case": "a", "image": [str(files[1])]},
        {"case": "b", "image": [str(files[0])]},
    ]
    assert image_items(files[0]) == [items[1]]


def test_a_data_set_gives_its_images_without_labels(cohort: Path) -> None:
    items = image_items(cohort)
    assert len(items) == 5 and all(set(item) == {"case", "image"} for item in items)


def test_no_image_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert image_items(tmp_path) == []
    assert "there is no image to segment" in caplog.text
