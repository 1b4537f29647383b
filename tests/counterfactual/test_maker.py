"""The command, on a few generated images, with the bundle that ships."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from medsegdiff.bundle.bundle import load_bundle
from medsegdiff.cli.main import app
from medsegdiff.core.errors import InputError
from medsegdiff.counterfactual.maker import fit_differences, probabilities
from medsegdiff.phantoms.cohort import write_lesion_cohort


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases that the bundle has not seen: another seed."""
    return write_lesion_cohort(tmp_path_factory.mktemp("lesions"), cases=10, seed=5).parent


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.long
def test_lesions_are_found_and_healthy_images_left_alone(cohort: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("counterfactual", cohort / "imagesTr", "--bundle", "phantom_counterfactual")
    run(*command, "--output", out)
    scores, on_healthy, on_lesions = [], [], []
    for folder in sorted(path for path in out.iterdir() if path.is_dir()):
        name = folder.name
        difference = nib.load(folder / f"{name}_difference.nii.gz")
        image = nib.load(cohort / "imagesTr" / f"{name}.nii.gz")
        assert difference.shape == image.shape
        assert np.allclose(difference.affine, image.affine)
        lesion = nib.load(cohort / "labelsTr" / f"{name}.nii.gz").get_fdata() > 0
        values = difference.get_fdata()
        if lesion.any():
            scores.append(roc_auc_score(lesion.ravel(), values.ravel()))
            on_lesions.append(values[lesion].mean())
        else:
            on_healthy.append(values.mean())
        chance = nib.load(folder / f"{name}_mean_lesion.nii.gz").get_fdata()
        order = np.argsort(values.ravel())
        assert (np.diff(chance.ravel()[order]) >= -1e-6).all()  # a monotone map
        assert (folder / f"{name}_counterfactual.nii.gz").is_file()
        assert (folder / f"{name}_preview.png").is_file()
        record = json.loads((folder / f"{name}_run.json").read_text())
        assert record["calibrated"] and record["warnings"] == []
        assert record["seconds"]["load"] > 0 and record["seconds"]["sample"] > 0
    assert np.mean(scores) > 0.9
    assert np.mean(on_healthy) < 0.25 * np.mean(on_lesions)
    first = (out / "phantom_0000" / "phantom_0000_run.json").stat().st_mtime_ns
    run(*command, "--output", out)
    assert (out / "phantom_0000" / "phantom_0000_run.json").stat().st_mtime_ns == first


def test_a_calibration_is_fitted_and_stored(cohort: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "copy"
    shutil.copytree(load_bundle("phantom_counterfactual").root, bundle)
    (bundle / "models" / "difference.json").unlink()
    image = cohort / "imagesTr" / "phantom_0001.nii.gz"
    command = ("counterfactual", image, "--bundle", bundle, "--steps", 3)
    run(*command, "--output", tmp_path / "plain")
    record = json.loads(next((tmp_path / "plain").glob("*/*_run.json")).read_text())
    assert not record["calibrated"] and "not calibrated" in record["warnings"][0]
    run(*command, "--output", tmp_path / "fitted", "--calibrate", cohort)
    stored = json.loads((bundle / "models" / "difference.json").read_text())
    assert stored["n"] == 2 and stored["fitted_with"]["steps"] == 3
    record = json.loads(next((tmp_path / "fitted").glob("*/*_run.json")).read_text())
    assert record["calibrated"]
    run(*command, "--output", tmp_path / "other", "--level", 0.4)  # another map of differences
    record = json.loads(next((tmp_path / "other").glob("*/*_run.json")).read_text())
    assert not record["calibrated"]


def test_a_calibration_takes_any_mark_of_any_reader(cohort: Path, tmp_path: Path) -> None:
    described = json.loads((cohort / "dataset.json").read_text())
    for entry in described["training"]:
        entry["image"] = str(cohort / entry["image"])
        label = nib.load(cohort / entry["label"])
        mask = np.asarray(label.dataobj)
        entry["label"] = str(tmp_path / Path(entry["label"]).name)
        nib.save(nib.Nifti1Image(np.stack([0 * mask, mask], -1), label.affine), entry["label"])
    (tmp_path / "dataset.json").write_text(json.dumps(described | {"raters": 2}))
    found = []
    for number, data in enumerate((cohort, tmp_path)):
        bundle = tmp_path / f"copy{number}"
        shutil.copytree(load_bundle("phantom_counterfactual").root, bundle)
        image = cohort / "imagesTr" / "phantom_0001.nii.gz"
        command = ("counterfactual", image, "--bundle", bundle, "--steps", 2)
        run(*command, "--output", tmp_path / f"out{number}", "--calibrate", data)
        found.append(json.loads((bundle / "models" / "difference.json").read_text()))
    assert found[0] == found[1]


def test_a_volume_goes_plane_by_plane(cohort: Path, tmp_path: Path) -> None:
    planes = [nib.load(cohort / "imagesTr" / "phantom_0001.nii.gz").get_fdata() for _ in range(2)]
    nib.save(nib.Nifti1Image(np.stack(planes, axis=-1), np.eye(4)), tmp_path / "volume.nii.gz")
    command = ("counterfactual", tmp_path / "volume.nii.gz", "--bundle", "phantom_counterfactual")
    run(*command, "--output", tmp_path / "out", "--steps", 3)
    found = nib.load(tmp_path / "out" / "volume" / "volume_difference.nii.gz").get_fdata()
    assert found.shape == (*planes[0].shape, 2)
    assert np.allclose(found[..., 0], found[..., 1], atol=1e-4)


def test_odds_become_probabilities_that_come_true() -> None:
    rng = np.random.default_rng(0)
    difference = rng.gamma(1.0, 0.2, (50, 40)).astype(np.float32)
    chance = 1.0 / (1.0 + np.exp(3.0 - 2.0 * np.log(difference + 1e-6) - 3.0))
    there = rng.random(difference.shape) < chance
    found = probabilities(difference, fit_differences([difference], [there]))
    assert np.abs(found[1] - chance).mean() < 0.02
    assert np.allclose(found.sum(axis=0), 1.0, atol=1e-5)
    with pytest.raises(InputError, match="with a lesion and without"):
        fit_differences([difference], [np.zeros_like(there)])
