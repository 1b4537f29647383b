"""Decode compressed pixels in a process of its own, with limits of time and memory.

The decoders of the JPEG family are written in C and C++, and a code stream that contradicts its
header can end the process that they run in, keep it busy without end, or fill its memory. Here that
process is a worker: it is started when a series needs it, serves its images, and ends with them.
Uncompressed pixels need no worker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import RLELossless

from medsegdiff.core.limits import DECODING_GIB, DECODING_SECONDS

_WORKER = "medsegdiff.data.dicom.decoding_worker"
_TYPES = {np.dtype(name).str: np.dtype(name) for name in ("u1", "i1", "u2", "i2", "u4", "i4")}
_PACKAGES = Path(__file__).resolve().parents[3]
_START_SECONDS = 60.0  # for the worker's imports, on a slow disk


class DecodingError(RuntimeError):
    """Compressed pixels that cannot be decoded, or not within the limits."""


class Decoder:
    """A worker that decodes the pixels of some files; it starts at the first of them.

    After a file that ends it, the next one starts another.

    Args:
        files: Paths of the files; the largest counts for the limit of memory.
    """

    def __init__(self, files: Collection[Path]) -> None:
        self._files = files
        self._process: subprocess.Popen[bytes] | None = None

    def planes(
        self, file: Path, numbers: Sequence[int], shape: tuple[int, int]
    ) -> Iterator[NDArray[Any]]:
        """The stored values of frames, one at a time.

        Args:
            file: Path of the file.
            numbers: Numbers of the frames, from 0.
            shape: Rows and columns that the header announces.

        Raises:
            DecodingError: a frame cannot be decoded, takes too long, or has another size.
        """
        if self._process is not None and self._process.poll() is not None:
            self.close()
        started = self._process is None
        worker = self._process = self._process or _started(self._files)
        request = json.dumps({"file": str(file.absolute()), "numbers": [int(n) for n in numbers]})
        seconds = DECODING_SECONDS.value + (_START_SECONDS if started else 0.0)
        with suppress(OSError):  # it has ended: the missing answer says so
            _pipe(worker.stdin).write(request.encode() + b"\n")
            _pipe(worker.stdin).flush()
        for _ in numbers:
            yield _answer(worker, seconds, shape)
            seconds = DECODING_SECONDS.value

    def close(self) -> None:
        """End the worker, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@contextmanager
def decoding(files: Collection[Path]) -> Iterator[Decoder]:
    """A context with a decoder, whose worker has ended when the block has."""
    decoder = Decoder(files)
    try:
        yield decoder
    finally:
        decoder.close()


def needs_worker(dataset: Any) -> bool:
    """Whether pixels are compressed in a way that only code in C or C++ can read."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    return syntax is not None and syntax.is_encapsulated and syntax != RLELossless


def stored_values(dataset: Any, file: Path, decoder: Decoder) -> NDArray[Any]:
    """The stored values (frames, rows, columns) of all of a file.

    Args:
        dataset: Content of the file.
        file: Path of the file.
        decoder: Decoder of compressed pixels.

    Raises:
        RuntimeError: they cannot be decoded, within the limits.
        DAMAGED: the data set is broken.
    """
    shape = int(dataset.Rows), int(dataset.Columns)
    if not needs_worker(dataset):
        return np.asarray(dataset.pixel_array).reshape(-1, *shape)
    count = int(dataset.get("NumberOfFrames") or 1)
    if count > file.stat().st_size:
        raise ValueError(f"{count} frames, more than the file can hold")
    return np.stack(list(decoder.planes(file, range(count), shape)))


def _started(files: Collection[Path]) -> subprocess.Popen[bytes]:
    """The worker; it finds the package where this process did, and nothing in the working folder.

    Args:
        files: Paths of the files that it will be asked for.
    """
    largest = max(file.stat().st_size for file in files)
    memory = int(DECODING_GIB.value * 2**30) + 2 * largest
    installed = str(_PACKAGES) in sysconfig.get_paths().values()  # found there anyway
    paths = ["" if installed else str(_PACKAGES), os.environ.get("PYTHONPATH", "")]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-P", "-m", _WORKER, str(memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the decoders' complaints, which may show what is in a header
        env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def _answer(
    worker: subprocess.Popen[bytes], seconds: float, shape: tuple[int, int]
) -> NDArray[Any]:
    """The next plane of a worker, which is not trusted: a line with its type, then its bytes.

    Raises:
        DecodingError: the worker has ended, took longer than the limit, or answers something else.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        worker.kill()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        kind = _TYPES.get(_pipe(worker.stdout).readline(9).decode("latin-1").strip())
        needed = shape[0] * shape[1] * (kind.itemsize if kind else 0)
        content = _pipe(worker.stdout).read(needed)
    finally:
        timer.cancel()
    if late.is_set():
        worker.wait()
        limit = f"{DECODING_SECONDS.value:g} s, the limit of {DECODING_SECONDS.variable}"
        raise DecodingError(f"decoding takes longer than {limit}")
    if kind is None or len(content) < needed:
        worker.kill()
        worker.wait()
        raise DecodingError("the decoder fails")
    return np.frombuffer(content, kind).reshape(shape)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:  # pragma: no cover
        raise ValueError("the worker was started without pipes")
    return stream
