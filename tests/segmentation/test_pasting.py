"""Parts of a scan that were segmented by themselves, in the maps of the whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegdiff.core.storage import Storage, slowest_axis
from medsegdiff.core.types import Features, Geometry
from medsegdiff.segmentation.pasting import pasted
from medsegdiff.segmentation.segmented_case import SegmentedCase

SHAPE = (9, 7, 6)
LEFT, RIGHT = (slice(0, 5),) * 3, (slice(3, 9), slice(2, 7), slice(1, 6))


def part(box: tuple[slice, ...], seed: int, feature: Features) -> SegmentedCase:
    """Maps of a box in which everything is random, and differs from background."""
    rng, shape = np.random.default_rng(seed), tuple(one.stop - one.start for one in box)
    mean = rng.dirichlet((1.0, 1.0, 1.0), shape).astype(np.float32)
    return SegmentedCase(
        geometry=Geometry(shape, np.eye(4)),
        image=np.zeros((1, *shape), np.float32),
        mask=rng.integers(1, 3, shape, dtype=np.uint8),
        mean=np.moveaxis(mean, -1, 0),
        variance=rng.uniform(0.1, 0.2, (3, *shape)).astype(np.float32),
        entropy=rng.uniform(0.1, 1.0, shape).astype(np.float32),
        anchor=rng.integers(1, 3, shape, dtype=np.uint8),
        members=rng.integers(1, 3, (4, *shape), dtype=np.uint8),
        seconds={"encode": 1.0 + seed, "sample": 10.0},
        windows={"run": 2 + seed, "skipped": 1},
        calibration_shift=0.1 * seed,
        features=(feature,),
    )


FEATURES: list[Features] = [{"f": {"a": 1.0}}, {"f": {"a": 2.0}}]
PARTS = {
    "left": (LEFT, part(LEFT, 1, FEATURES[0])),
    "right": (RIGHT, part(RIGHT, 2, FEATURES[1])),
}
SCAN = np.random.default_rng(0).random((2, *SHAPE)).astype(np.float32)
GEOMETRY = Geometry(SHAPE, np.diag([1.0, 2.0, 3.0, 1.0]))
MAPS = ("mean", "variance", "members", "entropy", "mask", "anchor")


def expected(name: str) -> np.ndarray:
    """Voxel by voxel: of the part that is least sure of background, or background."""
    first: Any = getattr(PARTS["left"][1], name)
    whole = np.zeros((*first.shape[: first.ndim - 3], *SHAPE), first.dtype)
    if name == "mean":
        whole[0] = 1.0
    for voxel in np.ndindex(SHAPE):
        least = 1.0
        for box, case in PARTS.values():
            if all(one.start <= v < one.stop for one, v in zip(box, voxel, strict=True)):
                own = tuple(v - one.start for one, v in zip(box, voxel, strict=True))
                if case.mean[0][own] < least:
                    least = case.mean[0][own]
                    whole[(..., *voxel)] = getattr(case, name)[(..., *own)]
    return whole


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_voxel_is_of_the_part_that_is_least_sure_of_background(
    on_disk: bool, tmp_path: Path
) -> None:
    storage = Storage(tmp_path, in_memory=0) if on_disk else Storage()
    found = pasted(SCAN, GEOMETRY, PARTS, storage)
    for name in MAPS:
        ours, other = getattr(found, name), expected(name)
        assert ours.dtype == other.dtype and ours.shape == other.shape
        np.testing.assert_array_equal(ours, other, err_msg=name)
    np.testing.assert_allclose(found.mean.sum(axis=0), 1.0, rtol=1e-6)
    assert found.image is SCAN and found.geometry is GEOMETRY and found.storage is storage


def test_what_was_measured_of_the_parts_is_put_together() -> None:
    found = pasted(SCAN, GEOMETRY, PARTS, Storage())
    assert found.seconds == {"encode": 5.0, "sample": 20.0}
    assert found.windows == {"run": 7, "skipped": 2}
    assert found.calibration_shift == pytest.approx(0.2)
    assert found.places == {"left": LEFT, "right": RIGHT}
    assert found.features == tuple(FEATURES)


def test_without_anchors_there_is_none() -> None:
    parts = {name: (box, replace(case, anchor=None)) for name, (box, case) in PARTS.items()}
    assert pasted(SCAN, GEOMETRY, parts, Storage()).anchor is None


@pytest.mark.parametrize("slowest", [0, 2])
def test_the_maps_lie_in_memory_as_the_scan_does(slowest: int) -> None:
    scan = Storage().zeros(SCAN.shape, "float32", slowest)
    found = pasted(scan, GEOMETRY, PARTS, Storage())
    for maps in (found.mean, found.variance, found.members):
        assert slowest_axis(maps) == slowest
    for one in (found.entropy, found.mask, found.anchor):
        assert one is not None and slowest_axis(one[None]) == slowest
