"""Level 1: arrays too large for memory lie in files without a name, and are taken slab by slab."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from medsegdiff.core.errors import InputError

IN_MEMORY = 2**28
"""Bytes up to which an array stays in memory."""

SLAB = 2**20
"""Voxels that are worked on at once where an array is taken slab by slab."""


class Storage:
    """Makes the arrays of a case: small ones in memory, large ones on disk.

    A large one is mapped from a file that has no name any more: it is gone with the array, however
    the process ends. The system writes and reads its pages as it needs memory.

    Args:
        folder: where the files lie; None: all arrays stay in memory.
        in_memory: bytes up to which an array stays in memory.
    """

    def __init__(self, folder: str | Path | None = None, in_memory: int = IN_MEMORY) -> None:
        self.folder, self.in_memory = folder, in_memory
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()

    def zeros(self, shape: Sequence[int], dtype: DTypeLike, slowest: int = 0) -> NDArray[Any]:
        """An array of zeros.

        Args:
            shape: (C, *spatial); each channel lies in one piece.
            dtype: of its values.
            slowest: the spatial axis whose layers lie in one piece each.

        Raises:
            InputError: the disk has no room for it.
        """
        axes = list(range(1, len(shape)))
        order = [0, axes.pop(slowest), *axes]
        flat = self._zeros([shape[axis] for axis in order], np.dtype(dtype))
        return flat.transpose(np.argsort(order))

    def release(self) -> None:
        """Let go of the memory that large arrays take; their values stay."""
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)

    def _zeros(self, shape: Sequence[int], dtype: np.dtype[Any]) -> NDArray[Any]:
        size = math.prod(shape) * dtype.itemsize
        if self.folder is None or size <= self.in_memory:
            return np.zeros(shape, dtype)
        with tempfile.TemporaryFile(dir=self.folder, prefix=".maps-") as file:
            _reserve(file.fileno(), size, self.folder)
            mapped = mmap.mmap(file.fileno(), size)
        self._maps.add(mapped)
        return np.frombuffer(mapped, dtype).reshape(shape)


def slowest_axis(maps: NDArray[Any]) -> int:
    """The spatial axis of (C, *spatial) whose layers lie in one piece, or nearly so."""
    return int(np.argmax(maps.strides[1:]))


def slabs(spatial: Sequence[int], axis: int, voxels: int = SLAB) -> Iterator[tuple[slice, ...]]:
    """Places that together cover a grid once, cut along one axis.

    >>> [place[1] for place in slabs((4, 5), axis=1, voxels=8)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    axis %= len(spatial)
    length = spatial[axis]
    thickness = max(1, voxels * length // math.prod(spatial))
    for start in range(0, length, thickness):
        place = [slice(None)] * len(spatial)
        place[axis] = slice(start, min(start + thickness, length))
        yield tuple(place)


def _reserve(file: int, size: int, folder: str | Path) -> None:
    """Take the room on disk now: a full disk would end the process when a page is written."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        else:
            os.truncate(file, size)
    except OSError as error:
        rule = f"has no room for {size / 2**30:.1f} GiB of a large image's maps ({error.strerror})"
        remedy = "Free some space, or choose an output folder on another disk"
        raise InputError(folder, rule, remedy) from error
