"""``medsegdiff check`` on data sets that are fit, and on one that is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from medsegdiff.cli.main import app

RUNNER = CliRunner()


@pytest.fixture
def dataset(tmp_path: Path, make_nifti: Callable[..., Path]) -> Path:
    """Three tiny cases with one class."""
    training = []
    for seed, name in enumerate(("a", "b", "c")):
        label = np.zeros((8, 9, 7), np.uint8)
        label[2:5, 3:6, 2:4] = 1
        make_nifti(f"imagesTr/{name}.nii.gz", seed=seed)
        make_nifti(f"labelsTr/{name}.nii.gz", array=label)
        training.append(
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        )
    description = {
        "name": "Tiny",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "thing"},
        "tensorImageSize": "3D",
        "numTraining": 3,
        "training": training,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    return tmp_path


def test_a_fit_set(dataset: Path) -> None:
    result = RUNNER.invoke(app, ["check", str(dataset)])
    assert result.exit_code == 0, result.output
    assert "fit to train on; 0 errors" in result.stdout
    assert "thing" in result.stdout


def test_the_description_of_a_folder_is_written(dataset: Path) -> None:
    (dataset / "dataset.json").unlink()
    written = dataset / "dataset.json"
    result = RUNNER.invoke(app, ["check", str(dataset), "--write", str(written)])
    assert result.exit_code == 0, result.output
    described = json.loads(written.read_text())
    assert described["labels"] == {"0": "background", "1": "class 1"}
    assert [entry["case"] for entry in described["training"]] == ["a", "b", "c"]


def test_a_set_that_is_not_fit(dataset: Path) -> None:
    (dataset / "labelsTr" / "b.nii.gz").unlink()
    result = RUNNER.invoke(app, ["check", str(dataset), "-q"])
    assert result.exit_code == 1
    assert "not fit to train on" in result.stdout
    assert result.stderr == ""


def test_a_known_set_at_the_wrong_level(tmp_path: Path) -> None:
    (tmp_path / "database" / "training" / "patient001").mkdir(parents=True)
    result = RUNNER.invoke(app, ["check", f"acdc={tmp_path}", "-q"])
    assert result.exit_code == 1
    assert f"Give acdc={tmp_path / 'database'}" in result.stderr
