"""The tutorial on one's own data runs, and ends as it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs.test_docs import DOCS, blocks, run_line

PAGE = DOCS / "tutorials" / "your_own_data.md"


@pytest.mark.long
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for block in blocks(PAGE, "bash"):
        for line in block.splitlines():
            run_line(line, tmp_path)
    report = json.loads((tmp_path / "study" / "report.json").read_text())
    assert report["summary"]["n_cases"] == 6
    assert [run["fold"] for run in report["training"]] == [0, 1]
    assert report["plan"]["reasons"]["epochs"]
    assert (tmp_path / "study" / "plan.md").is_file()
    cases = [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert len(cases) == 6
