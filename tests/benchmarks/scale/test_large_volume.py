"""The table of large volumes: run on a small one, with empty windows around its body."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scale import large_volume


@pytest.mark.long
def test_a_small_volume_gives_a_row(tmp_path: Path) -> None:
    words = ["--side", "64", "--slices", "12", "--window", "16", "--members", "2"]
    rows = large_volume.main([*words, "--output", str(tmp_path)])
    assert rows == json.loads((tmp_path / "large_volume.json").read_text())["rows"]
    (row,) = rows
    assert row["shape"] == [64, 64, 12] and row["peak_memory_mb"] > 0
    assert row["windows"]["run"] > 0 and row["windows"]["skipped"] >= 4  # the corners, at least
    assert "| 64 × 64 × 12 |" in (tmp_path / "large_volume.md").read_text("utf-8")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md"}
