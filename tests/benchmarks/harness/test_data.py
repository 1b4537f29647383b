"""What the contenders are given."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib

from benchmarks.harness.data import load_study
from medsegdiff.bundle.bundle import load_bundle
from medsegdiff.phantoms.cohort import write_cohort


def test_a_volume_of_one_plane_is_one_item(tmp_path: Path) -> None:
    data = str(write_cohort(tmp_path, cases=5, size=16, classes=1, raters=2))
    case = "phantom_000"
    for path in [*tmp_path.glob(f"imagesTr/{case}*"), *tmp_path.glob(f"labelsTr/{case}*")]:
        nib.save(nib.load(path).slicer[:, :, 8:9], path)
    study = load_study(data, load_bundle("hippocampus_mr"), 0, planes=True, changes={})
    mine = [item for item in study.training + study.held_out if item["case"].startswith(case)]
    assert [item["case"] for item in mine] == [f"{case}/0"]
    assert mine[0]["image"].ndim == 3 and mine[0]["label"].shape[0] == 2
