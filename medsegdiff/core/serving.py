"""Level 0: the worker's side of :mod:`medsegdiff.core.worker_process`."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PIPE = 2**20  # bytes that the caller need not wait for one by one
Send = Callable[[dict[str, Any], NDArray[Any] | None], None]
"""Sends an answer: what was found in a file, and values or None."""


def serve(answer: Callable[[dict[str, Any], Send], None]) -> None:
    """Answer requests until the input ends, or an exception ends this process.

    Args:
        answer: Function of a request, and of a function to send each answer to it.
    """
    output = os.fdopen(os.dup(1), "wb")
    with suppress(AttributeError, OSError):  # Linux alone has it, and bounds the sum for a user
        fcntl.fcntl(output.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
    os.dup2(2, 1)  # what a library prints is no answer

    def send(found: dict[str, Any], values: NDArray[Any] | None) -> None:
        kind = {} if values is None else {"type": values.dtype.str, "shape": values.shape}
        text = json.dumps({**found, **kind}).encode()
        output.write(struct.pack("<I", len(text)) + text)
        if values is not None:
            output.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        output.flush()

    for line in sys.stdin:
        request = json.loads(line)
        _bound_memory(request["memory"])
        answer(request, send)


def _bound_memory(size: int) -> None:
    """Bound the memory in bytes that this process may take, where the system can."""
    try:
        import resource
    except ImportError:  # not on every system
        return
    with suppress(ValueError, OSError):
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        bound = size if most == resource.RLIM_INFINITY else min(size, most)
        resource.setrlimit(resource.RLIMIT_AS, (bound, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # no patient in a dump
