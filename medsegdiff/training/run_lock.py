"""One training in a folder at a time."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

NAME = "training.lock"
_held: set[Path] = set()


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """A context in which this process alone may train in a folder.

    The system releases the lock when the process ends in whatever way. The file beside it says who
    has it; one that a dead process of this machine left behind is taken over.

    Args:
        folder: Folder of the run, which exists.

    Raises:
        InputError: another process trains there, or may do so on another machine.
    """
    path = (Path(folder) / NAME).resolve()
    if path in _held:
        raise _refusal(folder, _this_process())
    file = _locked_file(path, folder)
    try:
        _take_over(path, file, folder)
    except InputError:
        os.close(file)
        raise
    _held.add(path)
    try:
        yield
    finally:
        _held.discard(path)
        with suppress(OSError):
            path.unlink()
        os.close(file)


def _locked_file(path: Path, folder: str | Path) -> int:
    """An open and locked file; POSIX locks are not inherited by workers that load data."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                owner = _read(file)
                os.close(file)
                raise _refusal(folder, owner) from None
            logger.warning("%s cannot be locked: start no second training there", folder)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)  # its owner removed it between the two calls


def _take_over(path: Path, file: int, folder: str | Path) -> None:
    """Write this process into the file, unless another machine's is in it."""
    owner, own = _read(file), _this_process()
    if owner and owner.get("host") != own["host"]:
        rule = f"was being trained in by {_in_words(owner)}, which cannot be asked from here"
        raise InputError(folder, rule, f"If it no longer runs there, delete {path}")
    if owner:
        logger.warning("%s has ended without a word: its folder is taken over", _in_words(owner))
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(own).encode(), 0)


def _refusal(folder: str | Path, owner: dict[str, Any]) -> InputError:
    rule = f"is being trained in by {_in_words(owner)}"
    return InputError(folder, rule, "Wait until it has ended, or choose another folder")


def _this_process() -> dict[str, Any]:
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "started": started}


def _in_words(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner.get('process')} on {owner.get('host')} since {owner.get('started')}"


def _read(file: int) -> dict[str, Any]:
    """Owner that a lock file names; empty if there is none yet."""
    try:
        found = json.loads(os.pread(file, 4096, 0))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
