"""Large arrays: on disk, let go of, gone with the last that holds them."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.core.storage import Storage, slabs, slowest_axis

STATM = Path("/proc/self/statm")


@pytest.mark.parametrize("in_memory", [0, 2**30], ids=["disk", "memory"])
@pytest.mark.parametrize("slowest", [0, 1, -1])
def test_an_array_is_zeros_of_a_layout(tmp_path: Path, in_memory: int, slowest: int) -> None:
    array = Storage(tmp_path, in_memory).zeros((2, 5, 6, 7), "float32", slowest)
    assert array.shape == (2, 5, 6, 7) and array.dtype == np.float32 and not array.any()
    assert slowest_axis(array) == slowest % 3
    assert array.strides[0] == 4 * 5 * 6 * 7  # a channel lies in one piece


def test_values_outlive_their_memory_and_leave_no_file(tmp_path: Path) -> None:
    storage = Storage(tmp_path, in_memory=0)
    array, other = (storage.zeros((1, 300, 40), dtype) for dtype in ("float32", "uint8"))
    array[0, :, 3], other[0, 7] = np.arange(300), 9
    storage.release()
    np.testing.assert_array_equal(array[0, :, 3], np.arange(300))
    assert array.sum() == 299 * 150 and other.sum() == 9 * 40
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not STATM.is_file(), reason="the system does not tell a process's memory")
def test_memory_is_let_go(tmp_path: Path) -> None:
    storage = Storage(tmp_path, in_memory=0)
    array = storage.zeros((1, 2**25), "float32")
    array[:] = 1.0

    def resident_mb() -> float:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    before = resident_mb()
    storage.release()
    assert resident_mb() < before - 100
    assert array[0, -1] == 1.0


def test_a_full_disk_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(InputError, match=r"has no room for 0\.0 GiB .*No space left.*another disk"):
        Storage(tmp_path, in_memory=0).zeros((1, 100), "uint8")


@pytest.mark.parametrize("shape", [(5, 7), (4, 5, 6)], ids=["2d", "3d"])
def test_slabs_cover_a_grid_once(shape: tuple[int, ...]) -> None:
    for axis, voxels in itertools.product(range(-1, len(shape)), (1, 20, 1000)):
        seen = np.zeros(shape, dtype=int)
        for place in slabs(shape, axis, voxels):
            seen[place] += 1
            layer = seen.size // shape[axis]
            assert seen[place].size <= max(voxels, layer)
        assert (seen == 1).all()
