"""Level 0: a file is complete or absent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PREFIX = ".writing-"


@contextmanager
def written_aside(path: str | Path, durable: bool = False) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` once the block has ended well.

    The file is written into a hidden folder beside ``path`` and moved by ``os.replace``, so a
    reader sees the old file or the whole new one, and a failure leaves nothing behind. Missing
    parent folders are created. The name is kept, since many writers go by a file's ending.

    Args:
        path: Path of the final file.
        durable: Whether the content is on the disk before the file takes its name, so that a loss
            of power leaves the old file or the whole new one; costs milliseconds.

    Yields:
        The path to write to, with the same name.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with written_aside(folder / "a.txt") as aside:
    ...     _ = aside.write_text("whole")
    >>> (folder / "a.txt").read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=_PREFIX) as folder:
        aside = Path(folder) / path.name
        yield aside
        if durable:
            _flush(aside)
        os.replace(aside, path)
    if durable and os.name == "posix":
        _flush(path.parent)


def remove_unfinished(folder: str | Path) -> None:
    """Remove what a process left behind that was killed while it wrote files into a folder.

    Args:
        folder: Folder into which no other process writes at the time.
    """
    for left in Path(folder).glob(f"{_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_text(path: str | Path, text: str) -> None:
    """Writes ``text`` in UTF-8, whole or not at all.

    Args:
        path: Path of the file; missing folders are created.
        text: Whole content of the file.
    """
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Writes ``data`` as indented JSON, whole or not at all.

    Args:
        path: Path of the file; missing folders are created.
        data: Dictionaries, lists, texts, finite numbers, booleans, None; a path becomes its text.

    Raises:
        ValueError: for NaN and infinity, which JSON does not know.
        TypeError: for a type that JSON does not have.
    """

    def as_text(value: object) -> str:
        if isinstance(value, Path):
            return str(value)
        raise TypeError(f"{value!r} ({type(value).__name__}) has no place in a JSON file")

    write_text(path, json.dumps(data, indent=2, allow_nan=False, default=as_text) + "\n")


def digest(paths: Iterable[str | Path], first: bytes = b"") -> str:
    """SHA-256, in hexadecimal, of the contents of some files one behind the other.

    Args:
        paths: Paths of the files.
        first: Content that comes before theirs.

    Raises:
        OSError: a file cannot be read.
    """
    checksum = hashlib.sha256(first)
    for path in paths:
        with Path(path).open("rb") as file:
            while chunk := file.read(2**20):
                checksum.update(chunk)
    return checksum.hexdigest()


def read_json(path: str | Path) -> Any:
    """The content of a JSON file that this package wrote; None if there is no readable one."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
