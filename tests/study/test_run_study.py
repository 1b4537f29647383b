"""A whole study of a tiny network: done once, gone on with, and its bundle used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from typer.testing import CliRunner

from medsegdiff.bundle import trusted_bundles
from medsegdiff.bundle.bundle import Bundle, load_bundle
from medsegdiff.calibration.calibrate_bundle import calibrate
from medsegdiff.cases.job import segment
from medsegdiff.cli.main import app
from medsegdiff.core import errors
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.study import run_study
from medsegdiff.study.run_study import fit
from medsegdiff.study.study_folder import StudyFolder

STAGES = [
    *("check", "plan", "train fold 0", "segment fold 0", "train fold 1", "segment fold 1"),
    *("bundle", "calibrate", "report"),
]


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings for a study of seconds."""
    return {
        "train#trainer#max_epochs": 1,
        "val_interval": 1,
        "validate#inferer#members": 2,
        "validate#inferer#steps": 1,
        "members": 4,
        "tracking_uri": f"sqlite:///{folder}/mlruns.db",
        **changes,
    }


def again(study: Path, cohort: Path, untrained: Bundle, **changes: Any) -> None:
    overrides = settings(study.parent, **changes)
    fit(cohort, study, folds=2, bundle=untrained, device="cpu", overrides=overrides)


def report_of(study: Path) -> dict[str, Any]:
    """The report without the times of the trainings."""
    report: dict[str, Any] = json.loads((study / "report.json").read_text())
    for run in report["training"]:
        del run["seconds"]
    return report


@pytest.fixture(scope="module")
def finished(cohort: Path, untrained: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study of two folds."""
    study = tmp_path_factory.mktemp("studies") / "hippo"
    again(study, cohort, untrained)
    return study


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(finished, tmp_path / "hippo"))


def done_now(
    monkeypatch: pytest.MonkeyPatch, study: Path, cohort: Path, untrained: Bundle, **changes: Any
) -> list[str]:
    """Names of the stages that another call does."""
    names: list[str] = []
    run = run_study.StageRecord.run

    def watched(self: Any, stage: Any, *given: Any) -> bool:
        done = run(self, stage, *given)
        names.extend([stage.name] if done else [])
        return done

    monkeypatch.setattr(run_study.StageRecord, "run", watched)
    again(study, cohort, untrained, **changes)
    return names


def test_the_files_are_as_promised(finished: Path) -> None:
    content = json.loads((finished / "study.json").read_text())
    assert list(content["stages"]) == STAGES
    assert all(stage["done"] for stage in content["stages"].values())
    report = report_of(finished)
    assert report["summary"]["n_cases"] == 5 and len(report["training"]) == 2
    assert report["without_prediction"] == 0 and report["plan"] is None
    assert "not seen it: 2 networks" in (finished / "report.html").read_text()
    for fold in (0, 1):
        cases = json.loads((finished / f"fold{fold}" / "cases.json").read_text())
        held_out = [p.name for p in (finished / f"fold{fold}" / "held_out").iterdir() if p.is_dir()]
        assert sorted(held_out) == sorted(cases["validation"])
    assert not list(finished.glob(".held_out*"))


def test_its_bundles_run_without_a_question(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trusted_bundles, "_known", set())  # as in another process
    roots = [path.parents[1] for path in finished.rglob("configs/metadata.json")]
    assert len(roots) == 4  # untrained, each fold's, and the result
    for root in roots:
        Bundle(root).parser("inference")


def test_the_bundle_is_the_ensemble_of_the_folds(finished: Path, cohort: Path) -> None:
    bundle = load_bundle(finished)
    assert bundle.name == "hippo" and bundle.root == finished / "bundle"
    weights = torch.load(bundle.weights(), weights_only=True)
    first, second = (torch.load(finished / f"fold{k}" / "final.pt") for k in (0, 1))
    name = next(name for name in first if not torch.equal(first[name], second[name]))
    assert torch.equal(weights[f"networks.0.{name}"], first[name])
    assert torch.equal(weights[f"networks.1.{name}"], second[name])
    fitted = json.loads((bundle.root / "models" / "calibration.json").read_text())["fitted_on"]
    assert len(fitted["single_networks"]) == 2 and fitted["cases"] == 5


def test_the_folds_are_children_of_the_study_at_mlflow(finished: Path) -> None:
    client = mlflow.MlflowClient(_tracking(finished))
    runs = client.search_runs([client.get_experiment_by_name("hippocampus_mr").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert set(by_name) == {"hippo", "hippo-fold0", "hippo-fold1"} and len(runs) == 3
    parent = by_name["hippo"]
    assert parent.info.status == "FINISHED"
    assert parent.data.params["cases"] == "5"
    (used,) = parent.inputs.dataset_inputs
    stages = json.loads((finished / "study.json").read_text())["stages"]
    assert stages["check"]["inputs"]["data"].startswith(used.dataset.digest)
    kept = {one.path for one in client.list_artifacts(parent.info.run_id)}
    assert {"report.json", "report.html", "cases.csv", "config.yaml", "bundle"} <= kept
    (version,) = client.search_model_versions("name='hippo'")
    assert version.run_id == parent.info.run_id and load_bundle(version.source).weights()
    dice = report_of(finished)["summary"]["dice"]
    assert parent.data.metrics["dice_mean"] == pytest.approx(dice["mean"])
    for fold in (0, 1):
        tags = by_name[f"hippo-fold{fold}"].data.tags
        assert tags["mlflow.parentRunId"] == parent.info.run_id


def test_the_study_segments_as_a_bundle(finished: Path, cohort: Path, tmp_path: Path) -> None:
    image = sorted((cohort.parent / "imagesTr").glob("*.nii.gz"))[0]
    assert segment(image, finished, tmp_path / "out", device="cpu", guarantee=0.5) == {}
    name = image.name.removesuffix(".nii.gz")
    run = json.loads((tmp_path / "out" / name / f"{name}_run.json").read_text())
    assert run["bundle"] == "hippo" and run["members"] == 4 and run["calibrated"]
    assert not any("was fitted with" in warning for warning in run["warnings"])
    assert any("of 2 single networks" in warning for warning in run["warnings"])


def test_a_calibration_of_other_networks_is_refused(finished: Path, cohort: Path) -> None:
    folder = StudyFolder(finished)
    swapped = [folder.single(1), folder.single(0)]
    with (
        folder.all_held_out([0, 1]) as cases,
        pytest.raises(InputError, match="not the ensemble of the networks"),
    ):
        calibrate(folder.bundle, cohort, cases, finished / "other.json", singles=swapped)


def test_a_single_fold_gives_the_plain_network(
    cohort: Path, untrained: Bundle, tmp_path: Path
) -> None:
    overrides, study = settings(tmp_path), tmp_path / "one"
    bundle = fit(cohort, study, fold=1, bundle=untrained, device="cpu", overrides=overrides)
    assert bundle.fingerprint() == StudyFolder(study).single(1).fingerprint()
    assert json.loads((study / "report.json").read_text())["summary"]["n_cases"] == 1


def test_run_again_it_does_nothing(
    study: Path, cohort: Path, untrained: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = json.loads((study / "study.json").read_text())["stages"]
    assert done_now(monkeypatch, study, cohort, untrained) == []
    assert json.loads((study / "study.json").read_text())["stages"] == before


def test_other_places_of_records_are_no_reason_to_train_again(
    study: Path, cohort: Path, untrained: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study / "report.json").unlink()
    other = {"tracking_uri": "off", "num_workers": 1}
    assert done_now(monkeypatch, study, cohort, untrained, **other) == ["report"]


@pytest.mark.long
def test_a_changed_setting_does_again_what_depends_on_it(
    study: Path, cohort: Path, untrained: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        names = done_now(patched, study, cohort, untrained, members=6)
    assert names == [one for one in STAGES[3:] if not one.startswith("train")]
    with monkeypatch.context() as patched:
        names = done_now(patched, study, cohort, untrained, members=6, learning_rate=0.01)
    assert names == STAGES[2:]


@pytest.mark.long
def test_interrupted_and_run_again_the_report_is_the_same(
    finished: Path,
    cohort: Path,
    untrained: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each call ends in the next of these, after its work and before the record of it."""
    study, calls = tmp_path / "hippo", list[str]()

    def stopped(name: str, number: int) -> Any:
        works, made = getattr(run_study, name), list[str]()

        def breaks(*args: Any, **kwargs: Any) -> Any:
            works(*args, **kwargs)
            made.append(name)
            calls.append(name)
            if len(made) == number:
                raise KeyboardInterrupt

        return breaks

    for name, number in [("train", 1), ("segment_fold", 2), ("calibrate", 1), ("evaluate", 1)]:
        with monkeypatch.context() as patched:
            patched.setattr(run_study, name, stopped(name, number))
            with pytest.raises(KeyboardInterrupt):
                again(study, cohort, untrained)
    again(study, cohort, untrained)
    assert calls == ["train", "segment_fold", "segment_fold", "calibrate", "evaluate"]
    assert report_of(study) == report_of(finished)


def test_what_is_no_study_is_left_alone(cohort: Path, untrained: Bundle, tmp_path: Path) -> None:
    (tmp_path / "fold0").mkdir()
    (tmp_path / "fold0" / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="holds files, but no study"):
        fit(cohort, tmp_path, bundle=untrained, device="cpu")
    assert (tmp_path / "fold0" / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hours": 2.0}, "are for a planned bundle"),
        ({"folds": 9}, "must be 2 to 5"),
        ({"overrides": {"fold": 1}}, "is set by the study itself"),
        ({"overrides": {"membres": 4}}, "is not a key"),
    ],
)
def test_wrong_use_is_refused(
    arguments: dict[str, Any], message: str, cohort: Path, untrained: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        fit(cohort, tmp_path / "study", bundle=untrained, device="cpu", **arguments)


def test_a_study_that_cannot_be_recorded_is_refused_first(
    cohort: Path, untrained: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None)
    for bundle in (None, untrained):
        with pytest.raises(InputError, match=r"mlflow, which is not.*medsegdiff\[train\]"):
            fit(cohort, tmp_path / "study", bundle=bundle, device="cpu")
    assert list(tmp_path.iterdir()) == []
    off: dict[str, Any] = {"tracking_uri": "off", "fold": 1}  # the second is refused later
    with pytest.raises(UsageError, match="is set by the study itself"):
        fit(cohort, tmp_path / "study", bundle=untrained, device="cpu", overrides=off)


def test_a_stopped_command_says_how_to_go_on(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_study, "fit", stopped)
    result = CliRunner().invoke(app, ["fit", str(cohort), "--output", str(tmp_path / "s")])
    assert result.exit_code == 130
    assert "is safe: the same command goes on" in result.stderr


def _tracking(study: Path) -> str:
    """The address at which the study is recorded."""
    config = (study / "fold0" / "config.yaml").read_text()
    return next(line for line in config.splitlines() if line.startswith("tracking_uri: ")).split(
        ": ", 1
    )[1]
