from __future__ import annotations

import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medsegdiff.cli.common import closest, parse_overrides, progress, set_up
from medsegdiff.cli.main import app
from medsegdiff.core.errors import UsageError
from medsegdiff.phantoms.cohort import write_cohort


def test_override_values_are_literals_or_texts() -> None:
    settings = ["a#b#0=1e-3", "c=[1, 2]", "d=true", "e=None", "f=x=y", "g='1'", "h=$@net", "i="]
    assert parse_overrides(settings) == {
        "a#b#0": 1e-3,
        "c": [1, 2],
        "d": True,
        "e": None,
        "f": "x=y",
        "g": "1",
        "h": "$@net",
        "i": "",
    }


@pytest.mark.parametrize("setting", ["epochs", "=5", " =5"])
def test_an_override_without_key_is_wrong_usage(setting: str) -> None:
    with pytest.raises(UsageError, match="key=value"):
        parse_overrides([setting])


def test_closest() -> None:
    assert closest("hipocampus", ["hippocampus_mr", "lidc"]) == "Did you mean hippocampus_mr?"
    assert closest("x", ["b", "a"]) == "Known are a, b"


@pytest.mark.parametrize(
    ("quiet", "verbose", "level"),
    [(True, False, logging.WARNING), (False, False, logging.INFO), (False, True, logging.DEBUG)],
)
def test_talkativeness(
    quiet: bool, verbose: bool, level: int, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(quiet, verbose)
    assert logging.getLogger("medsegdiff").level == level
    assert list(progress("counting")(range(3))) == [0, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == ""
    if quiet:
        assert captured.err == ""


def test_what_nobody_expected_is_one_line_or_with_debug_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("all of it")

    monkeypatch.setattr("medsegdiff.data.fitness.check", fails)
    data = write_cohort(tmp_path, cases=2, size=8)
    done = CliRunner().invoke(app, ["check", str(data)])
    assert done.exit_code == 1 and done.stdout == ""
    told = "medsegdiff: error: unexpected ZeroDivisionError: all of it. Run it with --debug to see"
    assert done.stderr.startswith(told) and len(done.stderr.splitlines()) == 1
    done = CliRunner().invoke(app, ["check", str(data), "--debug"])
    assert isinstance(done.exception, ZeroDivisionError)


def test_a_missing_folder_of_predictions_is_told_before_anything_is_read(tmp_path: Path) -> None:
    data = write_cohort(tmp_path, cases=2, size=8)
    words = ["evaluate", "--data", str(data), "--predictions", str(tmp_path / "none")]
    done = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "out")])
    assert done.exit_code == 1 and "none: no such folder" in done.stderr
    assert not (tmp_path / "out").exists()


def test_one_fold_and_a_number_of_folds_contradict_each_other(tmp_path: Path) -> None:
    words = ["fit", str(tmp_path), "--output", str(tmp_path / "out"), "--folds", "2", "--fold", "0"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "--fold: cannot be given with --folds" in done.stderr


def test_a_calibration_with_a_bundle_is_of_one_folder(tmp_path: Path) -> None:
    words = ["calibrate", "hippocampus_mr", "--data", str(tmp_path)]
    words += ["--predictions", str(tmp_path), "--predictions", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and "--predictions: takes one folder with a bundle" in done.stderr
