"""Decode compressed pixels in a process of its own, with limits of time and memory.

The decoders of the JPEG family are written in C and C++, and a code stream that contradicts its
header can end the process that they run in, keep it busy without end, or fill its memory. Here that
process is a worker: it is started when a series needs it, serves its images, and ends with them.
Uncompressed pixels need no worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import RLELossless

from medsegdiff.core.limits import DECODING_GIB, DECODING_SECONDS
from medsegdiff.core.worker_process import Worker, WorkerError

_WORKER = "medsegdiff.data.dicom.decoding_worker"


class Decoder:
    """A worker that decodes the pixels of files; it starts at the first of them.

    After a file that ends it, the next one starts another.
    """

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def planes(
        self, file: Path, numbers: Sequence[int], shape: tuple[int, int]
    ) -> Iterator[NDArray[Any]]:
        """The stored values of frames, one at a time.

        Args:
            file: Path of the file.
            numbers: Numbers of the frames, from 0.
            shape: Rows and columns that the header announces.

        Raises:
            WorkerError: a frame cannot be decoded, takes too long, or has another size.
        """

        def check(found: tuple[int, ...]) -> None:
            if found != shape:
                raise WorkerError("the decoder fails")

        if self._worker is not None and self._worker.has_ended:
            self.close()
        worker = self._worker = self._worker or Worker(_WORKER)
        memory = int(DECODING_GIB.value * 2**30) + 2 * file.stat().st_size
        request = {"file": str(file.absolute()), "numbers": [int(n) for n in numbers]}
        worker.ask({**request, "memory": memory})
        for _ in numbers:
            _, plane = worker.answer(DECODING_SECONDS.value, check)
            yield plane

    def close(self) -> None:
        """End the worker, if there is one."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


@contextmanager
def decoding() -> Iterator[Decoder]:
    """A context with a decoder, whose worker has ended when the block has."""
    decoder = Decoder()
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
