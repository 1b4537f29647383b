"""Checkpoints: never fewer than what can be resumed, whatever happens while one is written."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from medsegdiff.core.atomic_files import remove_unfinished
from medsegdiff.core.errors import InputError
from medsegdiff.training.checkpoints import (
    NEEDED,
    checkpoints,
    latest_checkpoint,
    newest_that_loads,
    save_content,
    save_epoch,
)


def content(epoch: int) -> dict[str, Any]:
    return {**dict.fromkeys(NEEDED, 0), "trainer": {"epoch": epoch}, "network": torch.ones(50, 50)}


def names(folder: Path) -> list[str]:
    return [path.name for path in checkpoints(folder)]


def test_the_last_two_are_kept_in_the_order_of_epochs(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for epoch in (8, 9, 10):
        save_epoch(tmp_path, epoch, content(epoch))
    assert names(tmp_path) == ["last_checkpoint_epoch=10.pt", "last_checkpoint_epoch=9.pt"]


def test_a_failure_while_writing_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in (1, 2):
        save_epoch(tmp_path, epoch, content(epoch))
    save_content(tmp_path / "best.pt", {"a": torch.ones(2)})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for write in (
        lambda: save_epoch(tmp_path, 3, content(3)),
        lambda: save_content(tmp_path / "best.pt", {"a": torch.zeros(2)}),
    ):
        with pytest.raises(InputError, match=r"No space left.*intact.*--resume"):
            write()
    assert names(tmp_path) == ["last_checkpoint_epoch=2.pt", "last_checkpoint_epoch=1.pt"]
    assert torch.load(tmp_path / "best.pt")["a"].sum() == 2
    assert newest_that_loads(tmp_path)[1]["trainer"]["epoch"] == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full device")
def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Path.open

    def full(path: Path, *args: Any, **kwargs: Any) -> Any:
        return written(Path("/dev/full"), *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(InputError, match=r"No space left on device.*Free some space"):
        save_content(tmp_path / "best.pt", content(1))
    assert list(tmp_path.iterdir()) == []


def damage_nothing(path: Path) -> None:
    path.write_bytes(b"")


def damage_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def damage_value(path: Path) -> None:
    found = bytearray(path.read_bytes())
    place = found.index(torch.ones(50).numpy().tobytes()) + 80
    found[place] ^= 1
    path.write_bytes(found)


def damage_kind(path: Path) -> None:
    torch.save({"network": 1}, path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_nothing, "is empty"),
        (damage_end, "not a zip file"),
        (damage_value, "is damaged"),
        (damage_kind, "lacks ema"),
    ],
)
def test_the_newest_that_loads_is_taken_and_the_others_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any, reason: str
) -> None:
    for epoch in (9, 10):
        save_epoch(tmp_path, epoch, content(epoch))
    damage(tmp_path / "last_checkpoint_epoch=10.pt")
    with caplog.at_level("INFO"):
        path, found = newest_that_loads(tmp_path)
    assert path.name == "last_checkpoint_epoch=9.pt" and found["trainer"]["epoch"] == 9
    assert "=10.pt is passed over" in caplog.text and reason in caplog.text
    assert "going on from last_checkpoint_epoch=9.pt" in caplog.text
    save_epoch(tmp_path, 10, content(10))
    assert newest_that_loads(tmp_path)[1]["trainer"]["epoch"] == 10


def test_a_later_damaged_one_does_not_push_out_the_good(tmp_path: Path) -> None:
    for epoch in (6, 7):
        save_epoch(tmp_path, epoch, content(epoch))
    for epoch in (8, 9):
        (tmp_path / f"last_checkpoint_epoch={epoch}.pt").touch()
    save_epoch(tmp_path, 8, content(8))
    assert {"last_checkpoint_epoch=8.pt", "last_checkpoint_epoch=7.pt"} <= set(names(tmp_path))
    assert newest_that_loads(tmp_path)[1]["trainer"]["epoch"] == 8


def test_none_that_loads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="to resume from"):
        newest_that_loads(tmp_path)
    (tmp_path / "last_checkpoint_epoch=1.pt").touch()
    with pytest.raises(InputError, match=r"no checkpoint that can be read, of last.*=1.pt"):
        newest_that_loads(tmp_path)


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".writing-abc"
    left.mkdir()
    (left / "best.pt").write_bytes(b"half")
    (tmp_path / "best.pt").write_bytes(b"whole")
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]
