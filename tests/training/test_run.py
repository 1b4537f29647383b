"""Training through the bundle's own configuration: what it leaves, resuming, refusing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import mlflow
import pytest
import torch
import yaml

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.manifest import load_manifest
from medsegdiff.phantoms.cohort import write_cohort
from medsegdiff.training.checkpoints import latest_checkpoint
from medsegdiff.training.run import train
from tests.tiny_bundle import quick


def test_a_run_leaves_weights_cases_and_settings(trained: Path, cohort: Path) -> None:
    assert {"best.pt", "final.pt", "cases.json", "config.yaml"} <= {
        p.name for p in trained.iterdir()
    }
    training, validation = load_manifest(cohort).split(0)
    cases = json.loads((trained / "cases.json").read_text())
    assert cases["training"] == [c.id for c in training]
    assert cases["validation"] == [c.id for c in validation]
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config["train"]["trainer"]["max_epochs"] == 1 and config["dataset_dir"] == str(cohort)


def test_a_run_is_in_mlflow(trained: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{trained.parent}/mlruns.db")
    experiment = client.get_experiment_by_name("hippocampus_mr")
    assert experiment is not None
    (run,) = (
        r for r in client.search_runs([experiment.experiment_id]) if "first" in r.info.run_name
    )
    assert {"train_loss", "val_mean_dice", "val_ece", "val_ece_roi"} <= set(run.data.metrics)
    assert run.data.params["fold"] == "0" and run.info.status == "FINISHED"


def test_resuming_goes_on_where_the_run_stopped(
    untrained: Bundle, cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "run"
    train(untrained, cohort, output, device="cpu", overrides=quick(output))
    before = latest_checkpoint(output)
    assert before is not None
    first = torch.load(before, weights_only=True)
    with caplog.at_level("INFO", "medsegdiff.training"):
        train(
            untrained, cohort, output, resume=True, device="cpu", overrides=quick(output, epochs=2)
        )
    for figure in ("train_loss", "val_mean_dice"):
        assert re.search(rf"epoch 2: {figure} \d\.\d+", caplog.text)
    after = latest_checkpoint(output)
    assert after is not None and after.name == "last_checkpoint_epoch=2.pt"
    second = torch.load(after, weights_only=True)
    steps = [state["trainer"]["iteration"] for state in (first, second)]
    assert steps[1] == 2 * steps[0]
    assert second["lr_scheduler"]["last_epoch"] == 2 * first["lr_scheduler"]["last_epoch"]


def test_a_run_is_not_overwritten(untrained: Bundle, trained: Path, cohort: Path) -> None:
    with pytest.raises(InputError, match=r"already holds a run.*--resume"):
        train(untrained, cohort, trained)


def test_nothing_to_resume_is_said(untrained: Bundle, cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="to resume from"):
        train(untrained, cohort, tmp_path, resume=True, device="cpu", overrides=quick(tmp_path))


def test_an_unknown_key_is_refused_and_the_closest_named(
    untrained: Bundle, cohort: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="Did you mean train#trainer#max_epochs"):
        train(untrained, cohort, tmp_path, overrides={"train#trainer#max_epoch": 1})


def test_labels_that_the_network_does_not_know_are_refused(
    untrained: Bundle, tmp_path: Path
) -> None:
    data = write_cohort(tmp_path / "other", cases=5, size=16, classes=1)
    with pytest.raises(InputError, match="has the labels"):
        train(untrained, data, tmp_path / "run")
