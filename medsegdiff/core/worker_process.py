"""Level 0: processes for decoders written in C and C++, which an input may end, block or fill.

The caller's side; :mod:`medsegdiff.core.serving` is the worker's. A request is a line of JSON. An
answer is the length of a text of JSON in four bytes, that text, and the bytes of an array if the
text has its ``type`` and ``shape``. A worker is not trusted: what it answers is checked.
"""

from __future__ import annotations

import json
import os
import select
import struct
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.limits import DECODING_SECONDS

Found = dict[str, Any]
"""What a worker says of a file."""

START_SECONDS = 60.0
"""Seconds beyond the limit for the first answer of a worker: its imports, on a slow disk."""
_PACKAGES = Path(__file__).resolve().parents[2]
_LONGEST_TEXT = 2**16  # bytes of an answer without its array
_TYPES = {np.dtype(code).str: np.dtype(code) for code in "?bBhHiIlLqQfdFD"}


class WorkerError(RuntimeError):
    """A worker refuses a file, has ended, took longer than the limit, or answers nonsense."""


class Worker:
    """A process that answers requests until it is closed, or its caller ends.

    It finds the package where this process did, and nothing in the working folder.

    Args:
        module: Name of the module that it runs.
    """

    def __init__(self, module: str) -> None:
        installed = str(_PACKAGES) in sysconfig.get_paths().values()  # found there anyway
        paths = ["" if installed else str(_PACKAGES), os.environ.get("PYTHONPATH", "")]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            stderr=subprocess.DEVNULL,  # decoders' complaints, which may show what is in a header
            env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        self._output = cast(IO[bytes], self._process.stdout).fileno()
        self._ready = select.poll()
        self._ready.register(self._output, select.POLLIN)
        self._starting = True

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self._process.poll() is not None

    def ask(self, request: dict[str, Any]) -> None:
        """Send a request."""
        with suppress(OSError):  # it has ended: the missing answer says so
            stream = cast(IO[bytes], self._process.stdin)
            stream.write(json.dumps(request).encode() + b"\n")

    def answer(
        self, seconds: float, check: Callable[[tuple[int, ...]], object]
    ) -> tuple[Found, NDArray[Any]]:
        """The next answer; a worker that gives none is ended.

        Args:
            seconds: Number of seconds that it may take.
            check: Function that refuses an array's shape before there is room made for it; (0,) if
                there is none.

        Returns:
            What it found, and an array, empty if there is none.

        Raises:
            WorkerError: it refuses the file, has ended, took longer, or answers something else.
            Exception: what ``check`` raises.
        """
        until = time.monotonic() + seconds + (START_SECONDS if self._starting else 0.0)
        try:
            found = _found(self._bytes(_length(self._bytes(4, until)), until))
            values = np.empty(0) if "error" in found else _room(found, check)
            self._fill(values, until)
        except BaseException:  # a signal, too: what it would answer next is not known
            self.close()
            raise
        self._starting = False
        if "error" in found:
            raise WorkerError(str(found["error"]))
        return found, values

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            cast(IO[bytes], stream).close()

    def _bytes(self, count: int, until: float) -> bytes:
        content = np.empty(count, np.uint8)
        self._fill(content, until)
        return content.tobytes()

    def _fill(self, values: NDArray[Any], until: float) -> None:
        """Read the bytes of an array.

        Raises:
            WorkerError: the worker has ended, or they have not come in time.
        """
        rest = values.reshape(-1).view(np.uint8).data
        while rest:
            left = max(until - time.monotonic(), 0.0)
            if not self._ready.poll(1000 * left):
                limit = f"{DECODING_SECONDS.value:g} s, the limit of {DECODING_SECONDS.variable}"
                raise WorkerError(f"decoding takes longer than {limit}")
            count = os.readv(self._output, [rest])
            if not count:
                raise WorkerError("the decoder fails")
            rest = rest[count:]


def _length(content: bytes) -> int:
    (length,) = struct.unpack("<I", content)
    if length > _LONGEST_TEXT:
        raise WorkerError("the decoder fails")
    return int(length)


def _found(content: bytes) -> Found:
    with suppress(ValueError):
        found = json.loads(content)
        if isinstance(found, dict):
            return found
    raise WorkerError("the decoder fails")


def _room(found: Found, check: Callable[[tuple[int, ...]], object]) -> NDArray[Any]:
    """An array for the values of an answer."""
    try:
        shape = tuple(int(size) for size in found.get("shape", [0]))
        kind = _TYPES[found.get("type", "|u1")]
        check(shape)
        return np.empty(shape, kind)
    except (ValueError, OverflowError, KeyError, TypeError):
        raise WorkerError("the decoder fails") from None
