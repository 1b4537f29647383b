"""A stage is done once for the same inputs, and its outputs go when they change."""

from __future__ import annotations

from pathlib import Path

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.study.stage_record import Stage, StageRecord
from medsegdiff.study.time_left import seconds_left


def stage(folder: Path, value: str, name: str = "make", kind: str = "") -> Stage:
    """A stage that adds a line to a file."""

    def do() -> None:
        with (folder / "made.txt").open("a") as file:
            file.write(f"{value}\n")

    return Stage(name, lambda: {"value": value}, do, (folder / "made.txt",), kind)


def test_a_stage_is_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    root, made = tmp_path / "study", tmp_path / "study" / "made.txt"
    assert StageRecord(root).run(stage(root, "a"))
    assert not StageRecord(root).run(stage(root, "a"))
    assert made.read_text() == "a\n"
    assert StageRecord(root).run(stage(root, "b"))
    assert made.read_text() == "b\n"  # the earlier output is gone
    made.unlink()
    assert StageRecord(root).run(stage(root, "b"))


def test_what_an_interrupted_stage_left_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "study"
    record = StageRecord(root)
    first = stage(root, "a")

    def stopped() -> None:
        first.do()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record.run(Stage("make", first.inputs, stopped, first.outputs))
    assert StageRecord(root).run(first)
    assert (root / "made.txt").read_text() == "a\na\n"


def test_a_broken_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("[")
    with pytest.raises(InputError, match="cannot be read as the record"):
        StageRecord(tmp_path)


def test_the_time_left_is_that_of_stages_of_the_kind(tmp_path: Path) -> None:
    record = StageRecord(tmp_path / "study")
    stages = [stage(tmp_path, "a", f"train {k}", "train") for k in range(4)]
    assert seconds_left(stages, 0, record, None) == 0.0
    assert seconds_left(stages, 1, record, hours=1.0) == 3 * 900.0
    record.stages["train 0"] = {"done": True, "seconds": 10.0}
    record.stages["train 1"] = {"done": True, "seconds": 30.0}
    assert seconds_left(stages, 2, record, hours=1.0) == 2 * 20.0
