"""Two trainings never write into one folder."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.training import run_lock
from medsegdiff.training.run_lock import NAME, locked

HOLD = """
import sys, time
from medsegdiff.training.run_lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lock_says_who_has_it_and_goes_with_the_training(tmp_path: Path) -> None:
    with locked(tmp_path):
        owner = json.loads((tmp_path / NAME).read_text())
        assert (owner["process"], owner["host"]) == (os.getpid(), socket.gethostname())
        with pytest.raises(InputError, match="is being trained in by process"), locked(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path):
        pass


def test_another_process_is_refused_until_it_has_died(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with (
            pytest.raises(InputError, match=rf"process {other.pid} on .* since 20\d\d-.*another"),
            locked(tmp_path),
        ):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert (tmp_path / NAME).exists()
        with locked(tmp_path):
            owner = json.loads((tmp_path / NAME).read_text())
            assert owner["process"] == os.getpid()
        assert f"process {other.pid}" in caplog.text and "taken over" in caplog.text


def test_the_lock_of_another_machine_is_not_taken_over(tmp_path: Path) -> None:
    owner = {"process": 1, "host": "elsewhere", "started": "2026-01-01T00:00:00"}
    (tmp_path / NAME).write_text(json.dumps(owner))
    with (
        pytest.raises(InputError, match=r"process 1 on elsewhere.*delete .*training.lock"),
        locked(tmp_path),
    ):
        pass
    (tmp_path / NAME).unlink()  # the remedy
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("torn", ["", "{", "[]"])
def test_a_torn_lock_is_taken_over(tmp_path: Path, torn: str) -> None:
    (tmp_path / NAME).write_text(torn)
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()


def test_where_a_file_system_has_no_locks_the_user_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock.fcntl, "lockf", fails)
    with locked(tmp_path):
        assert json.loads((tmp_path / NAME).read_text())["process"] == os.getpid()
    assert "cannot be locked: start no second training there" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_where_the_system_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "fcntl", None)
    with locked(tmp_path):
        assert (tmp_path / NAME).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_its_owner_removes_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two calls its training ended: the file that is open has no name any more."""
    lock, calls = run_lock.fcntl.lockf, [0]

    def slow(*arguments: int) -> None:
        if calls == [0]:
            (tmp_path / NAME).unlink()
        calls[0] += 1
        lock(*arguments)

    monkeypatch.setattr(run_lock.fcntl, "lockf", slow)
    with locked(tmp_path):
        assert calls == [2] and (tmp_path / NAME).exists()


def test_an_owner_that_has_not_written_its_name_yet(tmp_path: Path) -> None:
    empty = "import os; os.truncate(sys.argv[1] + '/training.lock', 0)"
    code = HOLD.replace("    print(", f"    {empty}\n    print(")
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with (
            pytest.raises(InputError, match="is being trained in by another process"),
            locked(tmp_path),
        ):
            pass
        other.kill()
