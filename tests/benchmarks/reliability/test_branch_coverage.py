"""Shares of branches by package."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reliability.branch_coverage import main, shares_by_package


def summary(branches: tuple[int, int], lines: tuple[int, int]) -> dict[str, Any]:
    return {
        "summary": {
            "covered_branches": branches[0],
            "num_branches": branches[1],
            "covered_lines": lines[0],
            "num_statements": lines[1],
            "percent_covered": 0.0,
            "percent_covered_display": "0",
        }
    }


def test_files_of_a_package_are_added_up() -> None:
    files = {
        "medsegdiff/__init__.py": summary((0, 2), (1, 2)),
        "medsegdiff/core/a.py": summary((1, 2), (10, 10)),
        "/x/medsegdiff/core/deep/b.py": summary((8, 8), (10, 20)),
        "medsegdiff/viz/c.py": summary((0, 0), (3, 3)),
    }
    assert shares_by_package(files) == {
        "branch_coverage": {"core": 90.0, "viz": 100.0, "total": 75.0},
        "statement_branch_coverage": {"core": 72.5, "viz": 100.0, "total": 70.2},
    }


def test_what_a_run_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the branches of a package are run, by another process."""
    pytest.importorskip("coverage", reason="coverage, of the extra dev, is not installed")
    package = tmp_path / "medsegdiff"
    (package / "core").mkdir(parents=True)
    code = "def sign(x):\n    if x < 0:\n        return -1\n    return 1\n"
    (package / "core" / "signs.py").write_text(code)
    for folder in (package, package / "core"):
        (folder / "__init__.py").touch()
    settings = """
        [run]
        branch = true
        parallel = true
        source_pkgs = medsegdiff
        relative_files = true
        """
    (tmp_path / ".coveragerc").write_text(textwrap.dedent(settings))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    monkeypatch.delenv("COVERAGE_PROCESS_START", raising=False)
    (tmp_path / "job.py").write_text("from medsegdiff.core.signs import sign\nsign(1)\n")
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    command = [sys.executable, "-m", "coverage", "run", "job.py"]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    main(["--output", str(tmp_path / "figures.json")])
    found = (tmp_path / "figures.json").read_text()
    assert '"core": 50.0' in found
