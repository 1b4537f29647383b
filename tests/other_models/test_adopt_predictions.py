"""From another program's predictions to cases, their calibration, guarantees and reports."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from medsegdiff.calibration.calibrate_bundle import calibrate
from medsegdiff.cli.main import app
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.manifest import Manifest
from medsegdiff.evaluation.folder import evaluate
from medsegdiff.other_models.adopt_predictions import adopt
from medsegdiff.other_models.calibrate_adopted import calibrate_other
from tests.other_models.fake_predictions import (
    PLANS,
    deal,
    probabilities,
    write_description,
    write_nnunet_case,
    write_trainer,
)

RUNNER = CliRunner()
SLUGS = ("anterior", "posterior")


@pytest.fixture(scope="module")
def trainer(known: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trainer's folder with two folds of the first eight cases."""
    root = tmp_path_factory.mktemp("results")
    return write_trainer(root, [known.cases[0:8:2], known.cases[1:8:2]])


@pytest.fixture(scope="module")
def adopted(trainer: Path, nine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All its cases as this package's."""
    output = tmp_path_factory.mktemp("adopted")
    assert adopt(trainer, output, data=nine) == {}
    return output


@pytest.fixture(scope="module")
def calibration(adopted: Path, nine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration fitted to them."""
    path = tmp_path_factory.mktemp("calibration") / "calibration.json"
    calibrate(None, nine, adopted, path, splits=2)
    return path


def record_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{folder.name}_run.json").read_text())
    return content


def maps(folder: Path, kind: str) -> np.ndarray:
    files = [folder / f"{folder.name}_{kind}_{slug}.nii.gz" for slug in SLUGS]
    return np.stack([nib.load(file).get_fdata() for file in files])


def test_a_case_has_the_files_and_the_record_of_a_segmented_one(
    adopted: Path, known: Manifest
) -> None:
    case = known.cases[0]
    folder, expected = adopted / case.id, probabilities(case)
    np.testing.assert_allclose(maps(folder, "mean"), expected[1:], atol=2e-3)
    np.testing.assert_allclose(maps(folder, "variance"), (expected * (1 - expected))[1:], atol=2e-3)
    seg = np.asarray(nib.load(folder / f"{case.id}_seg.nii.gz").dataobj)
    assert (seg == expected.argmax(axis=0)).mean() > 0.999
    for name in ("entropy.nii.gz", "preview.png"):
        assert (folder / f"{case.id}_{name}").is_file()
    run = record_of(folder)
    assert run["program"] == "nnU-Net" and run["members"] == 1 and run["seed"] is None
    assert run["model"]["network"] == "fold_0"
    assert run["model"]["variance"] == "of the class: p (1 - p)"
    assert set(run["features"][0]) == {"geometry", "intensity", "ensemble"}
    page = (adopted / "report.html").read_text(encoding="utf-8")
    assert "probabilities come from another program" in page
    assert "None" not in re.sub(r"data:image/png;base64,[^\"]*", "", page)


def test_complete_cases_are_left_and_others_are_refused(
    trainer: Path, nine: Path, known: Manifest, tmp_path: Path
) -> None:
    mine = tmp_path / trainer.name
    shutil.copytree(trainer, mine)
    shutil.rmtree(mine / "fold_1")
    output, first = tmp_path / "out", known.cases[0]
    assert adopt(mine, output, data=nine, preview=False) == {}
    record = output / first.id / f"{first.id}_run.json"
    before = record.stat().st_mtime_ns
    write_nnunet_case(mine / "fold_0/validation", known.cases[2], probabilities(known.cases[2], 9))
    failures = adopt(mine, output, data=nine, preview=False)
    assert set(failures) == {known.cases[2].id}
    assert "another prediction_hash" in failures[known.cases[2].id]
    assert record.stat().st_mtime_ns == before
    assert adopt(mine, output, data=nine, overwrite=True, preview=False) == {}


def test_a_calibration_is_applied_and_its_guarantees_are_judged(
    trainer: Path, nine: Path, known: Manifest, calibration: Path, tmp_path: Path
) -> None:
    write_description(tmp_path / "new", PLANS)
    new = known.cases[8]
    write_nnunet_case(tmp_path / "new", new, probabilities(new))
    output = tmp_path / "out"
    asked: dict[str, Any] = {"calibration": calibration, "guarantee": 0.75}
    assert adopt(tmp_path / "new", output, data=nine, **asked) == {}
    run = record_of(output / new.id)
    assert run["calibrated"] is True and run["calibration"]["includes_this_case"] is False
    assert set(run["guarantee"]["classes"]) == set(SLUGS)
    assert run["review"] is None or set(run["review"]["expected_dice"]) <= set(SLUGS)
    assert run["unlike_training"]["p_value"] > 0.0
    assert any("2 single networks" in warning for warning in run["warnings"])
    evaluate(nine, output, tmp_path / "report")
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert report["cases"][0]["guarantee"]["volume_covered"]["anterior"] in (0.0, 1.0, None)
    mean = maps(output / new.id, "mean")
    assert np.abs(mean - probabilities(new)[1:]).max() > 0.01  # it was scaled
    with pytest.raises(InputError, match="was segmented with a calibration"):
        calibrate(None, nine, output, tmp_path / "twice.json")


def test_a_calibration_of_another_model_is_refused(
    nine: Path, known: Manifest, calibration: Path, tmp_path: Path
) -> None:
    folder = write_trainer(tmp_path, deal(known), PLANS | {"patch_size": [4, 4, 4]})
    with pytest.raises(InputError, match=r"of another model \(plans differ\)"):
        adopt(folder, tmp_path / "out", data=nine, calibration=calibration)
    content = json.loads(calibration.read_text())
    del content["fitted_on"]["model"]
    of_bundle = tmp_path / "bundle.json"
    of_bundle.write_text(json.dumps(content))
    with pytest.raises(InputError, match="was fitted to a bundle of this package"):
        adopt(folder, tmp_path / "out", data=nine, calibration=of_bundle)
    with pytest.raises(UsageError, match="none is given"):
        adopt(folder, tmp_path / "out", data=nine, guarantee=0.9)


def test_predictions_of_two_models_are_not_fitted_together(
    adopted: Path, nine: Path, known: Manifest, tmp_path: Path
) -> None:
    other = write_trainer(tmp_path, [known.cases[8:]], PLANS | {"patch_size": [4, 4, 4]})
    mixed = tmp_path / "mixed"
    shutil.copytree(adopted, mixed)
    assert adopt(other, mixed, data=nine, preview=False) == {}
    with pytest.raises(InputError, match="was not made with the plans and labels of"):
        calibrate(None, nine, mixed, tmp_path / "calibration.json")


def test_several_folders_are_members_whose_variance_is_between_them(
    nine: Path, known: Manifest, tmp_path: Path
) -> None:
    case, folders = known.cases[0], []
    for seed in range(2):
        folders.append(tmp_path / f"fold_{seed}")
        write_description(folders[-1], PLANS)
        write_nnunet_case(folders[-1], case, probabilities(case, seed))
    output = tmp_path / "out"
    assert adopt(folders, output, data=nine, save_members=True, preview=False) == {}
    both = np.stack([probabilities(case, seed)[1:] for seed in range(2)])
    np.testing.assert_allclose(maps(output / case.id, "mean"), both.mean(axis=0), atol=2e-3)
    np.testing.assert_allclose(maps(output / case.id, "variance"), both.var(axis=0), atol=2e-3)
    members = nib.load(output / case.id / f"{case.id}_members.nii.gz")
    assert members.shape == (*both.shape[2:], 2)
    assert record_of(output / case.id)["model"]["variance"] == "over members"


def test_cases_without_an_image_fail_and_without_any_the_grid_of_the_maps_counts(
    trainer: Path, nine: Path, known: Manifest, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for case in known.cases[:7]:
        shutil.copy(case.images[0], images / f"{case.id}_0000.nii.gz")
    failures = adopt(trainer, tmp_path / "with", images=images, preview=False)
    assert set(failures) == {known.cases[7].id} and "no image of this name" in str(failures)
    only = trainer / "fold_1/validation"
    assert adopt(only, tmp_path / "without", preview=False) == {}
    run = record_of(tmp_path / "without" / known.cases[1].id)
    assert set(run["features"][0]) == {"geometry", "ensemble"}
    assert any("no image was given" in warning for warning in run["warnings"])
    evaluate(nine, tmp_path / "without", tmp_path / "report")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(known.cases[8].images[0], other / "stranger.nii.gz")
    with pytest.raises(InputError, match="no image of the predicted cases"):
        adopt(trainer, tmp_path / "none", images=other)


def test_an_image_on_another_grid_is_refused(
    trainer: Path, known: Manifest, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    case = known.cases[1]
    image = nib.load(case.images[0])
    moved = image.affine.copy()
    moved[0, 3] += 5.0
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), images / f"{case.id}.nii.gz")
    failures = adopt(trainer / "fold_1/validation", tmp_path / "out", images=images)
    assert "voxels from its image (their affines differ)" in failures[case.id]


def test_the_commands_do_it_from_the_programs_own_folder(
    trainer: Path, nine: Path, tmp_path: Path
) -> None:
    file = tmp_path / "calibration.json"
    given = ["calibrate", "--data", str(nine), "--predictions", str(trainer), "--splits", "0"]
    done = RUNNER.invoke(app, [*given, "--output", str(file)])
    assert done.exit_code == 0, done.output
    assert "fitted on 8 cases of 8 patients" in done.output
    refused = RUNNER.invoke(app, given)
    assert refused.exit_code == 2 and "--output calibration.json" in refused.output
    output = tmp_path / "out"
    command = ["adopt", str(trainer / "fold_1/validation"), "--data", str(nine)]
    command += ["--output", str(output), "--calibration", str(file), "--guarantee", "0.75", "-q"]
    done = RUNNER.invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "single networks" not in " ".join(record_of(next(output.glob("phantom*")))["warnings"])


def test_classes_can_be_named_by_their_numbers(
    trainer: Path, nine: Path, known: Manifest, tmp_path: Path
) -> None:
    case = known.cases[1]
    whole = {"hippocampus": (1, 2)}
    assert adopt(trainer / "fold_1/validation", tmp_path, classes=whole, preview=False) == {}
    found = nib.load(tmp_path / case.id / f"{case.id}_mean_hippocampus.nii.gz").get_fdata()
    np.testing.assert_allclose(found, probabilities(case)[1:].sum(axis=0), atol=3e-3)
    with pytest.raises(UsageError, match="9 is no map of a class"):
        adopt(trainer, tmp_path / "out", classes={"hippocampus": (9,)})
    with pytest.raises(UsageError, match="names hippocampus, but the classes are anterior"):
        adopt(trainer, tmp_path / "out", data=nine, classes=whole)


def test_a_calibration_from_a_folder_is_that_of_its_adopted_cases(
    trainer: Path, nine: Path, calibration: Path, tmp_path: Path
) -> None:
    fitted = calibrate_other(nine, trainer, tmp_path / "calibration.json", splits=2)
    content = json.loads(calibration.read_text())
    assert fitted.to_json()["fitted_on"] == content["fitted_on"]
    np.testing.assert_allclose(fitted.scaling.temperature, content["temperature"])
