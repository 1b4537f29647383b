"""Figures of ejection fractions of made-up patients, and of files."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from benchmarks.accuracy.heart_function import figures, main
from medsegdiff.metrics import EjectionFraction


def test_figures_are_errors_in_points_and_shares_of_patients() -> None:
    found = [EjectionFraction(v, (v - 2.0, v, v + 2.0)) for v in (40.0, 50.0, 60.0, 65.0)]
    told = figures(found, [41.0, 49.0, 64.0, 65.0])
    assert told["patients"] == 4 and told["mean_absolute_error"] == pytest.approx(1.5)
    assert told["bias"] == pytest.approx(-1.0)
    assert told["members"]["covered"] == 0.75
    assert told["members"]["median_width"] == pytest.approx(3.6)
    assert told["widened"] is None
    more = figures(found * 3, [41.0, 49.0, 64.0, 65.0] * 3)["widened"]
    assert more["covered"] == 1.0 and more["factor"] == pytest.approx(4.0 / 1.8)


def test_files_are_paired_by_patient(tmp_path: Path) -> None:
    """The larger ventricle is end diastole, whatever the order of the files."""
    listed = []
    for patient, sizes in {"a": (4, 8), "b": (6, 3), "c": (8, 2)}.items():
        for phase, size in enumerate(sizes):
            name = f"{patient}{phase}"
            mask = np.zeros((10, 10, 2), np.uint8)
            mask[:size, 0] = 1
            for kind in ("images", "labels"):
                (tmp_path / kind).mkdir(exist_ok=True)
                nib.save(nib.Nifti1Image(mask, np.eye(4)), tmp_path / kind / f"{name}.nii.gz")
            folder = tmp_path / "cases" / name
            folder.mkdir(parents=True)
            volumes = {"ensemble": size, "members": [size, size + 1]}
            (folder / f"{name}_run.json").write_text(json.dumps({"volume_ml": {"lv": volumes}}))
            paths = {"image": f"./images/{name}.nii.gz", "label": f"./labels/{name}.nii.gz"}
            listed.append({**paths, "patient": patient})
    described = {
        "name": "hearts",
        "tensorImageSize": "3D",
        "modality": {"0": "MR"},
        "labels": {"0": "background", "1": "lv"},
        "training": listed,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    results = tmp_path / "found.json"
    cases = str(tmp_path / "cases")
    main([str(tmp_path), cases, "--ventricle", "lv", "--results", str(results)])
    told = json.loads(results.read_text())["lv"]
    assert told["patients"] == 3 and told["mean_absolute_error"] == pytest.approx(0.0)
    assert told["correlation"] == pytest.approx(1.0)
    for name, size in (("c0", 2), ("c1", 8)):  # the ensemble takes systole for the larger
        record = {"volume_ml": {"lv": {"ensemble": size, "members": [size, size]}}}
        (tmp_path / "cases" / name / f"{name}_run.json").write_text(json.dumps(record))
    main([str(tmp_path), cases, "--ventricle", "lv", "--results", str(results)])
    told = json.loads(results.read_text())["lv"]
    assert told["mean_absolute_error"] == pytest.approx((75 + 300) / 3)
