"""Workers that answer what was not asked for, or nothing."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegdiff.core import worker_process
from medsegdiff.core.errors import InputError
from medsegdiff.core.worker_process import Worker, WorkerError


def text_of(found: Any) -> bytes:
    text = json.dumps(found).encode()
    return struct.pack("<I", len(text)) + text


def worker_of(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    (folder / "odd_worker.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return Worker("odd_worker")


def saying(content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    code = f"import sys; sys.stdout.buffer.write({content!r}); sys.stdout.flush(); sys.stdin.read()"
    return worker_of(code, folder, monkeypatch)


def test_text_and_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    content = text_of({"a": [1, 2], "type": "<f4", "shape": [2, 3]}) + values.tobytes()
    worker = saying(content + text_of({"error": "no"}), tmp_path, monkeypatch)
    shapes: list[tuple[int, ...]] = []
    found, array = worker.answer(10, shapes.append)
    assert found["a"] == [1, 2] and shapes == [(2, 3)] and array.flags.writeable
    np.testing.assert_array_equal(array, values)
    with pytest.raises(WorkerError, match=r"^no$"):
        worker.answer(10, shapes.append)
    assert not worker.has_ended  # it has refused one request
    worker.close()


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<I", 2**31),
        struct.pack("<I", 3) + b"\xff{}",
        text_of([1]),
        text_of({"type": "|O", "shape": [1]}) + bytes(8),
        text_of({"type": "<f4", "shape": None}),
        text_of({"type": "<f4", "shape": [-1]}),
        text_of({"type": "<f4", "shape": 7}),
        text_of({"type": "<f4", "shape": [1e99]}),
    ],
)
def test_nonsense_ends_a_worker(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = saying(content, tmp_path, monkeypatch)
    with pytest.raises(WorkerError, match="the decoder fails"):
        worker.answer(10, lambda shape: None)
    assert worker.has_ended


def test_no_room_is_made_for_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = saying(text_of({"type": "<f4", "shape": [10**12]}), tmp_path, monkeypatch)

    def check(shape: tuple[int, ...]) -> None:
        raise InputError(shape, "is too much", "")

    with pytest.raises(InputError):
        worker.answer(10, check)
    assert worker.has_ended


@pytest.mark.parametrize("begun", [b"", text_of({"type": "<f4", "shape": [9]}) + bytes(7)])
def test_a_worker_that_does_not_go_on_is_ended(
    begun: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "START_SECONDS", 0.0)
    monkeypatch.setenv("MEDSEGDIFF_DECODING_SECONDS", "0.3")
    worker, started = saying(begun, tmp_path, monkeypatch), time.monotonic()
    with pytest.raises(WorkerError, match=r"longer than 0.3 s, the limit"):
        worker.answer(0.3, lambda shape: None)
    assert worker.has_ended and time.monotonic() - started < 30


def test_a_worker_that_has_ended_gives_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worker_of("raise SystemExit", tmp_path, monkeypatch)
    worker._process.wait()
    worker.ask({"a": 1})
    with pytest.raises(WorkerError, match="the decoder fails"):
        worker.answer(10, lambda shape: None)
