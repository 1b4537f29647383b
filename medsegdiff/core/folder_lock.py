"""Level 0: one process at a time in a folder that several write to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """A context that one process at a time is in; others wait for it.

    The system releases the lock when the process ends in whatever way. Where a file system has no
    locks, nobody waits.

    Args:
        folder: Folder that exists; the file ``.lock`` stays in it.
    """
    file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.lockf(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
