"""The parts of an ensemble's time: each is seen, and they add up to the whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.scale import where_the_time_goes
from medsegdiff.phantoms.cohort import write_cohort


def test_parts_add_up(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", cases=5, size=16, classes=2)
    words = ["--data", str(data), "--output", str(tmp_path), "--steps", "1,3"]
    where_the_time_goes.main(
        [*words, "--members", "2", "--images", "1", "--rounds", "1"], {"patch_size": [16] * 3}
    )
    table = json.loads((tmp_path / "where_the_time_goes.json").read_text())["milliseconds"]
    assert list(table) == ["1", "3"]
    for column in table.values():
        parts = [value for part, value in column.items() if part != "whole"]
        assert all(value > 0 for value in parts)
        assert sum(parts) == pytest.approx(column["whole"])
    text = (tmp_path / "where_the_time_goes.md").read_text("utf-8")
    assert "denoiser, all members" in text and "100%" in text
