"""What every command has in common: help, errors in one line, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medsegdiff import __version__
from medsegdiff.cli.main import app
from medsegdiff.core.errors import InputError, UsageError

COMMANDS = (
    *("check", "train", "segment", "evaluate", "synthesize"),
    *("bundles", "validate", "export", "demo"),
)
RUNNER = CliRunner()


def error_line(stderr: str) -> str:
    """The only line on standard error."""
    (line,) = stderr.strip().splitlines()
    assert line.startswith("medsegdiff: error: ")
    return line


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_parses(command: str) -> None:
    result = RUNNER.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: medsegdiff {command}" in " ".join(result.stdout.split())
    assert RUNNER.invoke(app, [command, "-h"]).stdout == result.stdout


def test_version_and_overview() -> None:
    assert RUNNER.invoke(app, ["--version"]).stdout.strip() == __version__
    overview = RUNNER.invoke(app, ["--help"]).stdout
    assert all(command in overview for command in COMMANDS)


def test_help_needs_no_heavy_library() -> None:
    script = (
        "import sys, medsegdiff.cli.main\n"
        "print(sorted({'torch', 'monai', 'nibabel', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["segment", "a.nii", "--membrs", "4"], "--members"),
        (["train", "b", "--dta", "d"], "--data"),
        (["sgment"], "segment"),
        (["segment"], "INPUT"),
        (["segment", "a.nii", "--output", "o"], "--bundle"),
        (["segment", "a.nii", "--bundle", "b", "--output", "o", "--members", "0"], "--members"),
        (["check"], "DATA"),
    ],
)
def test_wrong_usage_is_one_line_and_exits_with_2(arguments: list[str], says: str) -> None:
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 2
    assert says in error_line(result.stderr)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("a.nii.gz", "no such file", "Check the path"), 1),
        (UsageError("--set lrr", "no such key", "Did you mean lr?"), 2),
        (RuntimeError("several\nlines"), 1),
    ],
)
def test_errors_of_a_command(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, all_is_there: None
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("medsegdiff.data.fitness.check", fail)
    result = RUNNER.invoke(app, ["check", "data"])
    assert result.exit_code == code
    assert " ".join(str(error).split()) in error_line(result.stderr)
    assert RUNNER.invoke(app, ["check", "data", "--debug"]).exception is error


def test_a_missing_file_in_a_real_process(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("medsegdiff")
    done = subprocess.run(
        [program, "check", tmp_path / "none"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert str(tmp_path / "none") in error_line(done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("check nowhere", 1),
        ("train hippocampus_mr --data nowhere --output o", 1),
        ("train nobundle --data nowhere --output o", 2),
        ("segment nowhere.nii --bundle hippocampus_mr --output o", 1),
        ("segment nowhere.nii --bundle hippocampos_mr --output o", 2),
        ("segment nowhere.nii --bundle hippocampus_synthesis --output o", 1),
        ("evaluate --data nowhere --predictions o --output r", 1),
        ("calibrate nobundle --data nowhere --predictions o", 2),
        ("synthesize hippocampus_synthesis --data nowhere --output o", 1),
        ("counterfactual a.nii --bundle hippocampus_mr --output o", 1),
        ("label-efficient nobundle --output o", 2),
        ("ground nowhere --model m --output h.pt", 1),
        ("segment a.nii --bundle hippocampus_mr --output o --format nifty", 2),
    ],
)
def test_what_is_not_there_is_refused_before_heavy_libraries(
    line: str, code: int, tmp_path: Path
) -> None:
    """They take seconds: a fresh process tells which were imported."""
    script = (
        "import sys\nfrom medsegdiff.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\n"
        "except SystemExit as done:\n"
        "    print(done.code, sorted({'torch', 'monai', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *line.split()], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.strip() == f"{code} []", done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
