from __future__ import annotations

import json
from pathlib import Path

import pytest

from medsegdiff.core.atomic_files import write_json, write_text, written_aside


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="half way"), written_aside(path) as aside:
        aside.write_text("new")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_stands_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_text("old")
    with written_aside(path) as aside:
        assert aside.name == path.name
        aside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_json_takes_paths_and_refuses_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"file": tmp_path, "dice": 0.5, "none": None})
    assert json.loads(path.read_text()) == {"file": str(tmp_path), "dice": 0.5, "none": None}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"dice": float("nan")})
    with pytest.raises(TypeError, match="set"):
        write_json(path, {"dice": {1, 2}})
    assert json.loads(path.read_text())["dice"] == 0.5
