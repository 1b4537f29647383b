"""The command as 3D Slicer starts it: its words are understood, its environment is not Slicer's."""

from __future__ import annotations

import ast
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from MedSegDiffLib.segment_command import (
    FORMATS,
    CommandRun,
    SegmentOptions,
    case_told,
    clean_environment,
    find_executable,
    reason_of_failure,
    segment_command,
    share_done,
    write_points,
)

from medsegdiff.cases.case_line import case_line
from medsegdiff.cli.main import app
from medsegdiff.cli.options import parse_formats
from medsegdiff.core import progress as progress_module
from medsegdiff.core.errors import InputError
from medsegdiff.core.progress import progress
from medsegdiff.locating.given import read_points

MODULE = Path(__file__).resolve().parents[2] / "integrations" / "slicer" / "MedSegDiff"
OUTSIDE = [MODULE / "MedSegDiffLib" / name for name in ("segment_command.py", "case_results.py")]
"""Files that need no 3D Slicer."""

SEGMENT: Any = vars(typer.main.get_command(app))["commands"]["segment"]


def understood(words: list[str]) -> dict[str, Any]:
    """The options of a command line, as ``medsegdiff`` parses it."""
    assert words[1] == "segment"
    return dict(SEGMENT.make_context("segment", words[2:]).params)


def ended(run: CommandRun) -> tuple[list[str], int]:
    """All lines of a command, and its exit code."""
    found: list[str] = []
    deadline = time.monotonic() + 60
    while run.exit_code is None and time.monotonic() < deadline:
        found += run.new_lines()
        time.sleep(0.01)
    assert run.exit_code is not None
    return found, run.exit_code


def python(code: str) -> CommandRun:
    return CommandRun([sys.executable, "-c", code], os.environ)


@pytest.fixture
def asleep() -> Iterator[CommandRun]:
    """A command that does not end by itself, and has begun."""
    run = python("import time; print('begun', flush=True); time.sleep(600)")
    while not run.new_lines():
        time.sleep(0.01)
    yield run
    run.end()


def test_all_that_is_chosen_is_understood(tmp_path: Path) -> None:
    image, points = tmp_path / "volume.nrrd", tmp_path / "points.mrk.json"
    options = SegmentOptions("models:/lungs/3", 8, 2, "cuda:1", trust=True)
    given = understood(segment_command("x", image, tmp_path / "out", options, points))
    assert given["inputs"] == [str(image)] and given["output"] == tmp_path / "out"
    assert (given["bundle"], given["members"], given["steps"]) == ("models:/lungs/3", 8, 2)
    assert (given["device"], given["trust"], given["at"]) == ("cuda:1", True, str(points))
    assert given["as_json"] and parse_formats(given["formats"]) == FORMATS.split(",")


def test_what_is_not_chosen_is_left_to_the_bundle(tmp_path: Path) -> None:
    given = understood(segment_command("x", tmp_path, tmp_path, SegmentOptions("hippocampus_mr")))
    assert [given[name] for name in ("members", "steps", "at", "trust")] == [
        None,
        None,
        None,
        False,
    ]


def test_points_are_read_where_they_were_placed(tmp_path: Path) -> None:
    path = tmp_path / "points.mrk.json"
    placed = {"left": (26.5, -20.0, -14.25), "right": (-26.0, -20.0, -14.0)}
    write_points(path, placed.items())
    assert read_points(str(path)) == placed


def test_the_command_is_found_by_path_and_by_name(program: str, tmp_path: Path) -> None:
    folder = os.path.dirname(program)
    assert find_executable(program, "") == program
    assert find_executable("", folder) == program
    assert find_executable(" medsegdiff ", folder) == program
    with pytest.raises(FileNotFoundError, match="Install medsegdiff"):
        find_executable("", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such program"):
        find_executable(str(tmp_path / "medsegdiff"), folder)


def test_nothing_of_slicer_is_left_in_the_environment() -> None:
    home = os.path.join(os.sep, "opt", "Slicer-5.8")
    lib = os.path.join(home, "lib", "Python")
    kept = os.path.join(os.sep, "opt", "Slicer-5.8-data")  # begins alike, lies elsewhere
    given = {
        "PYTHONHOME": "/usr",  # of whichever Python: it would be the wrong one
        "PYTHONPATH": os.pathsep.join([lib, home]),
        "LD_LIBRARY_PATH": os.pathsep.join([lib, kept, "/usr/local/cuda/lib64"]),
        "PATH": os.pathsep.join([home + os.sep, "/usr/bin"]),
        "SSL_CERT_FILE": os.path.join(home, "share", "Slicer.crt"),
        "HTTP_PROXY": "http://proxy:3128",
        "EMPTY": "",
    }
    cleaned = clean_environment(given, home + os.sep)
    assert not [value for value in cleaned.values() if home + os.sep in value]
    assert not {"PYTHONHOME", "PYTHONPATH", "SSL_CERT_FILE"} & set(cleaned)
    assert cleaned["LD_LIBRARY_PATH"] == os.pathsep.join([kept, "/usr/local/cuda/lib64"])
    assert (cleaned["PATH"], cleaned["EMPTY"]) == ("/usr/bin", "")
    assert cleaned["HTTP_PROXY"] == given["HTTP_PROXY"]


def test_lines_of_both_streams_come_while_the_command_runs() -> None:
    code = "import sys, time; print('é', flush=True); time.sleep(1); print('b', file=sys.stderr)"
    run = python(code + "; sys.exit(3)")
    first: list[str] = []
    while not first:
        first = run.new_lines()
        time.sleep(0.01)
    assert first == ["é"] and run.exit_code is None
    assert ended(run) == (["b"], 3)


def test_no_line_is_lost() -> None:
    lines, code = ended(python("for n in range(5000): print(n)"))
    assert lines == [str(n) for n in range(5000)] and code == 0


def test_a_command_can_be_cancelled(asleep: CommandRun) -> None:
    assert asleep.exit_code is None and not asleep.cancelled
    asleep.cancel()
    assert ended(asleep)[1] != 0 and asleep.cancelled


def test_one_that_does_not_listen_is_killed() -> None:
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
    )
    for end in (lambda run: (run.cancel(), run.cancel()), lambda run: run.end(seconds=0.2)):
        run = python(f"{deaf}; time.sleep(600)")
        while not run.new_lines():
            time.sleep(0.01)
        end(run)
        assert ended(run)[1] != 0


def test_progress_is_read_from_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress_module, "SECONDS", 0.0)
    caplog.set_level(logging.INFO, "medsegdiff")
    with progress("volume", "window") as show:
        show(6, 24)
    with progress("segmenting", "case") as show:
        show(0, 1)
    assert [share_done(line) for line in caplog.messages] == [0.25, None]


def test_the_line_of_a_case_is_told_from_others(tmp_path: Path) -> None:
    line = case_line(tmp_path, "volume", InputError("volume", "is empty", "Choose another"))
    told = case_told(json.dumps(line))
    assert told == line
    assert [case_told(text) for text in ("", "{", '{"a": 1}', "written to out")] == [None] * 4
    reason = reason_of_failure([json.dumps(line), "medsegdiff: failed: volume"], 1)
    assert "is empty" in reason
    assert reason_of_failure(["Traceback", "KeyError: 1", ""], 1).endswith("KeyError: 1")
    assert "127" in reason_of_failure([], 127)


def test_the_reason_of_a_command_that_does_not_begin(program: str, tmp_path: Path) -> None:
    options = SegmentOptions(str(tmp_path / "no_such_bundle"))
    words = segment_command(program, tmp_path / "volume.nrrd", tmp_path / "out", options)
    lines, code = ended(CommandRun(words, clean_environment(os.environ, "")))
    assert code == 2
    reason = reason_of_failure(lines, code)
    assert reason.startswith("error: ") and "no_such_bundle" in reason


@pytest.mark.parametrize("path", sorted(MODULE.rglob("*.py")), ids=lambda path: path.name)
def test_older_versions_of_slicer_understand_the_syntax(path: Path) -> None:
    ast.parse(path.read_text("utf-8"), feature_version=(3, 9))


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.name)
def test_what_needs_no_slicer_needs_the_standard_library_alone(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    named = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    named |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {name.split(".")[0] for name in named} <= sys.stdlib_module_names
