"""Level 0: a file is complete or absent."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of ``path`` once the block has ended well.

    The file is written into a hidden folder beside ``path`` and moved by ``os.replace``, so a
    reader sees the old file or the whole new one, and a failure leaves nothing behind. Missing
    parent folders are created. The name is kept, since many writers go by a file's ending.

    Args:
        path: where the file shall be.

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
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        aside = Path(folder) / path.name
        yield aside
        os.replace(aside, path)


def write_text(path: str | Path, text: str) -> None:
    """Writes ``text`` in UTF-8, whole or not at all.

    Args:
        path: where the file shall be; missing folders are created.
        text: all that the file shall hold.
    """
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Writes ``data`` as indented JSON, whole or not at all.

    Args:
        path: where the file shall be; missing folders are created.
        data: dictionaries, lists, texts, finite numbers, booleans, None; a path becomes its text.

    Raises:
        ValueError: for NaN and infinity, which JSON does not know.
        TypeError: for what JSON cannot say.
    """

    def as_text(value: object) -> str:
        if isinstance(value, Path):
            return str(value)
        raise TypeError(f"{value!r} ({type(value).__name__}) has no place in a JSON file")

    write_text(path, json.dumps(data, indent=2, allow_nan=False, default=as_text) + "\n")


def digest(paths: Iterable[str | Path]) -> str:
    """SHA-256, in hexadecimal, of the contents of some files one behind the other."""
    of = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            while chunk := file.read(2**20):
                of.update(chunk)
    return of.hexdigest()


def read_json(path: str | Path) -> Any:
    """The content of a JSON file that this package wrote; None if there is no readable one."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
