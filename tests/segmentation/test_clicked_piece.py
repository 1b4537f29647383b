"""What stays of the masks around a click."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medsegdiff.core.types import Geometry
from medsegdiff.segmentation.clicked_piece import keep_clicked
from medsegdiff.segmentation.segmented_case import SegmentedCase

SHAPE = (20, 18, 10)
NODULE = (slice(8, 12), slice(7, 11), slice(3, 6))
VESSEL = (slice(8, 12), slice(7, 11), slice(8, 9))
HALO = (slice(7, 13), slice(6, 12), slice(2, 7))
CLICK = np.array([9.5, 8.5, 4.0])


def segmented(*seen: list[tuple[slice, ...]]) -> SegmentedCase:
    """A case whose members see these boxes; mean and mask are made of all of them."""
    members = np.zeros((len(seen), *SHAPE), dtype=np.uint8)
    for member, boxes in zip(members, seen, strict=True):
        for box in boxes:
            member[box] = 1
    share = members.mean(axis=0, dtype=np.float32)
    mean = np.stack([1.0 - share, share])
    return SegmentedCase(
        geometry=Geometry(SHAPE, np.diag([0.7, 0.7, 2.5, 1.0])),
        image=mean[:1],
        mask=(share > 0.5).astype(np.uint8),
        mean=mean,
        variance=np.stack([share * (1 - share)] * 2),
        entropy=share * (1 - share),
        anchor=(share > 0.5).astype(np.uint8),
        members=members,
        seconds={},
    )


def test_what_lies_elsewhere_is_removed_from_all_maps() -> None:
    case = segmented([NODULE, VESSEL], [NODULE, VESSEL], [NODULE])
    alone = segmented([NODULE], [NODULE], [NODULE])
    keep_clicked(case, CLICK, 5.0)
    for name in ("mask", "members", "anchor", "mean", "variance", "entropy"):
        np.testing.assert_array_equal(getattr(case, name), getattr(alone, name), err_msg=name)


def test_a_member_that_sees_only_other_things_sees_nothing() -> None:
    case = segmented([NODULE], [VESSEL], [])
    keep_clicked(case, CLICK, 5.0)
    assert case.members.any(axis=(1, 2, 3)).tolist() == [True, False, False]
    assert case.mean[1][NODULE].min() > 0.3 and not case.mean[1][VESSEL].any()


def test_faint_probability_around_the_piece_stays() -> None:
    case = segmented([NODULE, VESSEL], [NODULE])
    case.mean[1][HALO] += 0.02
    case.mean[0] = 1.0 - case.mean[1]
    before = case.mean[1].copy()
    keep_clicked(case, CLICK, 5.0)
    np.testing.assert_array_equal(case.mean[1][HALO], before[HALO])
    np.testing.assert_allclose(case.mean.sum(axis=0), 1.0, atol=1e-6)


def test_a_case_of_one_piece_is_unchanged() -> None:
    case, before = segmented([NODULE], [HALO]), segmented([NODULE], [HALO])
    keep_clicked(case, CLICK, 5.0)
    for name in ("mask", "members", "mean", "variance"):
        np.testing.assert_array_equal(getattr(case, name), getattr(before, name))


@pytest.mark.parametrize(("slices", "kept"), [(1.0, True), (1.7, False)])
def test_the_distance_is_in_mm(slices: float, kept: bool) -> None:
    """A click 3 slices above the nodule: 3 mm away, or 5.1."""
    case = replace(segmented([NODULE]), geometry=Geometry(SHAPE, np.diag([0.7, 0.7, slices, 1.0])))
    keep_clicked(case, np.array([9.0, 8.0, 8.0]), 5.0)
    assert case.members.any() == kept and case.mean[1].any() == kept


def test_without_an_anchor() -> None:
    case = replace(segmented([NODULE, VESSEL]), anchor=None)
    keep_clicked(case, CLICK, 5.0)
    assert case.mask[NODULE].all() and not case.mask[VESSEL].any()
