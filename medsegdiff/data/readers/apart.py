"""Read files by libraries in C and C++ in a process of its own, with limits of time and memory.

A damaged file can end the process that such a library runs in, keep it busy without end, or fill
its memory. Here that process is a worker. It lives as long as its caller, so that most files cost
no more than the way of their values through a pipe; a file that ends it fails, and the next one
starts another.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from medsegdiff.core.limits import DECODING_GIB, DECODING_SECONDS, check_size
from medsegdiff.core.worker_process import Found, Worker

_WORKER = "medsegdiff.data.readers.reading_worker"
_idle: list[Worker] = []
"""Workers that wait; several if several threads read."""
os.register_at_fork(after_in_child=_idle.clear)  # they are the parent's


def read_apart(what: str, files: Sequence[Path], needed: float = 0.0) -> tuple[Found, NDArray[Any]]:
    """What a worker reads of a file.

    Args:
        what: Name of a reader in :mod:`medsegdiff.data.readers.reading_worker`.
        files: Paths of the file, and of others that hold its values.
        needed: Number of bytes of memory that its values need.

    Returns:
        What the reader found; and the values, empty if it gives none.

    Raises:
        WorkerError: the file cannot be read, or not within ``DECODING_SECONDS``, with a second more
            for each MiB of it, and ``DECODING_GIB``, with twice the file and twice its values more.
        InputError: the values are more than the limit of sizes.
    """
    path, size = files[0], sum(file.stat().st_size for file in files)
    memory = int(DECODING_GIB.value * 2**30 + 2 * size + 2 * needed)
    seconds = DECODING_SECONDS.value + size / 2**20
    worker = _idle.pop() if _idle else Worker(_WORKER)
    if worker.has_ended:
        worker.close()
        worker = Worker(_WORKER)
    worker.ask({"what": what, "path": str(path.absolute()), "memory": memory})
    try:
        return worker.answer(seconds, lambda shape: check_size(path, 4.0 * prod(shape)))
    finally:
        if not worker.has_ended:
            _idle.append(worker)
