"""A resumed run has the settings and the cases of the run; what may change takes effect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import load_manifest
from medsegdiff.training.run import train
from medsegdiff.training.run_comparison import (
    refuse_other_cases,
    refuse_other_settings,
    write_cases,
)
from tests.tiny_bundle import quick

CONFIG: dict[str, Any] = {
    "fold": 0,
    "learning_rate": 0.1,
    "train": {"trainer": {"max_epochs": 5}, "steps": [1, 2]},
    "output_dir": "a",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def test_the_same_settings_and_another_place_are_fine(folder: Path) -> None:
    refuse_other_settings(folder, CONFIG)
    refuse_other_settings(folder, {**CONFIG, "output_dir": "b", "bundle_root": "c"})


def test_what_takes_effect_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = {**CONFIG, "learning_rate": 0.01}
    now["train"] = {**CONFIG["train"], "trainer": {"max_epochs": 9}}
    with caplog.at_level("INFO"):
        refuse_other_settings(folder, now)
    assert "learning_rate: 0.1 before, 0.01 now" in caplog.text
    assert "train#trainer#max_epochs: 5 before, 9 now" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold": 1}, r"fold: 0 before, 1 now.*--fold 0"),
        ({"batch_size": 2}, r"batch_size: nothing before, 2 now"),
        (
            {"train": {"trainer": {"max_epochs": 5}, "steps": [1, 3]}},
            r"train#steps#1: 2 before, 3 now.*--set train#steps#1=2",
        ),
    ],
)
def test_other_settings_are_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        refuse_other_settings(folder, {**CONFIG, **change})


def test_other_cases_and_other_files_are_refused(cohort: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(cohort.parent, copy)
    split = load_manifest(copy).split(0)
    write_cases(tmp_path, split)
    refuse_other_cases(tmp_path, split)
    refuse_other_cases(tmp_path, load_manifest(cohort).split(0))  # the same files elsewhere
    with pytest.raises(InputError, match=r"training cases were others: .* before, .* now"):
        refuse_other_cases(tmp_path, load_manifest(copy).split(1))
    changed = split[0][0]
    changed.images[0].write_bytes(changed.images[0].read_bytes() + b"more")
    with pytest.raises(InputError, match=rf"1 of the run's cases have changed \({changed.id}"):
        refuse_other_cases(tmp_path, split)


def test_training_refuses_another_fold_and_keeps_the_run(
    untrained: Bundle, cohort: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    settings = {**quick(output), "tracking_uri": "off"}
    train(untrained, cohort, output, device="cpu", overrides=settings)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    more = {**settings, "train#trainer#max_epochs": 2}
    with pytest.raises(InputError, match=r"fold: 0 before, 1 now"):
        train(untrained, cohort, output, fold=1, resume=True, device="cpu", overrides=more)
    with pytest.raises(InputError, match=r"batch_size: 2 before, 1 now.*--set batch_size=2"):
        other = {**more, "batch_size": 1}
        train(untrained, cohort, output, resume=True, device="cpu", overrides=other)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    remedied = {**more, "batch_size": 2}
    train(untrained, cohort, output, resume=True, device="cpu", overrides=remedied)
    last = torch.load(output / "last_checkpoint_epoch=2.pt", weights_only=True)
    assert last["trainer"]["epoch"] == 2
    assert json.loads((output / "cases.json").read_text())["validation"]
