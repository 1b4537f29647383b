from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from medsegdiff.core import progress as module
from medsegdiff.core.progress import progress, tracked


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[logging.INFO, logging.WARNING], ids=["normal", "quiet"])
def level(request: pytest.FixtureRequest) -> Iterator[int]:
    """Level of the package's log."""
    logger = logging.getLogger("medsegdiff")
    before = logger.level
    logger.setLevel(request.param)
    yield request.param
    logger.setLevel(before)


def test_a_terminal_gets_a_bar_unless_quiet(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(tracked("abc", "reading", "letter")) == ["a", "b", "c"]
    text = stream.getvalue()
    assert ("reading: 100%" in text and "3/3" in text) if level == logging.INFO else text == ""


def test_a_file_gets_a_line_now_and_then(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    seconds = iter([0.0, 10.0, 31.0, 40.0, 70.0])
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(module.logger, "info", lambda text, *words: told.append(text % words))
    with progress("case_1", "window") as show:
        for done in range(1, 5 if level == logging.INFO else 3):
            show(done, 9)
    expected = ["case_1: 2 of 9 windows in 31 s", "case_1: 4 of 9 windows in 70 s"]
    assert told == (expected if level == logging.INFO else [])
    assert "\r" not in stream.getvalue()
