"""How far a long task is: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
Show = Callable[[int, int], None]
"""(how many are done, of how many) -> shown."""

SECONDS = 30.0
"""Time between two lines of a log file."""

logger = logging.getLogger(__name__)


@contextmanager
def progress(title: str, unit: str, *, brief: bool = False) -> Iterator[Show]:
    """Within, shows how far a task is, if the package's log shows messages of level INFO.

    Args:
        title: Name of the task.
        unit: Name of what is counted, in the singular.
        brief: Whether the bar comes only after a second and goes at the end, as for a task within
            another.

    Returns:
        A function that is told how many are done, and of how many.
    """
    if not logger.isEnabledFor(logging.INFO):
        yield lambda done, total: None
    elif not sys.stderr.isatty():
        yield _lines(title, unit)
    else:
        delay = 1.0 if brief else 0.0
        with tqdm(desc=title, unit=unit, leave=not brief, delay=delay) as bar:

            def show(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield show


def tracked(items: Iterable[T], title: str, unit: str = "case") -> Iterator[T]:
    """The items, one after the other, while it is shown how many are done.

    Args:
        items: Sequence to go through.
        title: Name of the task.
        unit: Name of an item.
    """
    known = list(items)
    with progress(title, unit) as show:
        for number, item in enumerate(known):
            show(number, len(known))
            yield item
        show(len(known), len(known))


def _lines(title: str, unit: str) -> Show:
    """Writes a line into the log every ``SECONDS``."""
    started = last = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS:
            last = now
            logger.info("%s: %d of %d %ss in %d s", title, done, total, unit, now - started)

    return show
