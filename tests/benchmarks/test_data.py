"""What the contenders are given."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib

from benchmarks.data import load_study
from medsegdiff.bundle import find_bundle
from medsegdiff.data.phantom import write_cohort


def test_a_volume_of_one_plane_is_one_item(tmp_path: Path) -> None:
    folder = Path(write_cohort(tmp_path, cases=5, size=16, classes=1, raters=2))
    for kind in ("imagesTr", "labelsTr"):
        path = sorted((folder / kind).glob("*.nii.gz"))[0]
        nib.save(nib.load(path).slicer[:, :, 8:9], path)
        case = path.name.removesuffix(".nii.gz")
    study = load_study(str(folder), find_bundle("hippocampus_mr"), 0, planes=True, changes={})
    mine = [item for item in study.training + study.held_out if item["case"].startswith(case)]
    assert [item["case"] for item in mine] == [f"{case}/0"]
    for item in study.training + study.held_out:
        assert item["image"].shape == (1, 16, 16) and item["label"].shape == (2, 16, 16)
