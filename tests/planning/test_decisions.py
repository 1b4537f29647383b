"""Decisions on made-up fingerprints: what must hold of any plan, and what of some."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest

from medsegdiff.planning.decisions import VOXELS, decide, median_shape
from medsegdiff.planning.fingerprint import Fingerprint, tells_side
from medsegdiff.planning.levels import multiples
from tests.planning.fingerprints import ALL, BRAIN, CT, HEART, NODULES, PHOTOGRAPH, VESSELS


@pytest.mark.parametrize("of", ALL.values(), ids=ALL)
def test_any_plan_is_whole(of: Fingerprint) -> None:
    plan = decide(of)
    assert len(plan.patch) == len(plan.window) == len(plan.stride) == plan.dims
    assert len(plan.strides) == len(plan.kernels) == len(plan.channels)
    assert 2 <= len(plan.denoiser_channels) <= len(plan.channels) - 1
    for sides in (plan.patch, plan.window):
        assert all(n % m == 0 for n, m in zip(sides, multiples(plan.strides), strict=True))
    assert prod(plan.patch) <= 1.5 * VOXELS[plan.dims]
    assert max(plan.stride) == 2 and plan.strides[0] == (1,) * plan.dims
    assert plan.batch >= 2 and all(axis < plan.dims for axis in plan.mirror)
    for name in ("dims", "patch", "strides", "window", "mirror", "batch", "raters", "rotation"):
        assert plan.reasons is not None and plan.reasons[name], name
    assert plan.smaller() != plan


def test_volumes_are_planned_in_three_dimensions() -> None:
    plan = decide(replace(BRAIN, extent=(150.0, 180.0, 150.0)))
    assert (plan.dims, plan.slices, plan.axcodes, plan.spacing) == (3, False, "RAS", (1.0,) * 3)
    assert plan.foreground == 0.5 and plan.mirror == (0, 1, 2)
    assert plan.window == plan.patch and plan.anchor_time > 0


def test_few_thick_slices_are_planes() -> None:
    plan = decide(HEART)
    assert (plan.dims, plan.slices, plan.spacing) == (2, True, (1.5, 1.5, -1.0))
    assert plan.mirror == (1,)  # labels tell left from right, which is the first axis
    assert decide(replace(PHOTOGRAPH, sides=True)).mirror == ()
    assert decide(replace(BRAIN, sides=True)).mirror == (1, 2)
    sagittal = replace(HEART, shape=(9, 216, 256), spacing=(10.0, 1.5, 1.5), largest=(18, 260, 300))
    assert decide(sagittal).axcodes == "ASR"
    assert decide(NODULES).slices  # five slices, thick or not


def test_a_coarse_axis_is_halved_last() -> None:
    plan = decide(CT)
    assert plan.dims == 3 and plan.normalisation == "ct"
    assert "clipped to -90 to 250" in (plan.reasons or {})["normalisation"]
    assert plan.spacing == (0.8, 0.8, 1.5)  # along the slices the 10th percentile
    thick = decide(replace(CT, finest=(0.8, 0.8, 5.0)))
    assert thick.strides[1] == (2, 2, 1) and thick.kernels[0] == (3, 3, 1)
    assert thick.stride == (2, 2, 1) and thick.rotation == (0.0, 0.0, 0.35)


def test_large_thick_structures_of_photographs_are_made_smaller() -> None:
    large, thin = decide(PHOTOGRAPH), decide(VESSELS)
    assert large.spacing[0] == large.spacing[1] > 2.0
    assert thin.spacing == ()
    assert large.dims == thin.dims == 2 and not large.slices


def test_raters_are_learned_from_at_once() -> None:
    plan = decide(NODULES)
    assert plan.several_raters and plan.anchor_time < decide(BRAIN).anchor_time


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *((side, True) for side in ("LeftKidney", "kidney_left", "lt kidney", "right1", "lung-L")),
        *((other, False) for other in ("liver", "cleft", "bright spot")),
    ],
)
def test_labels_of_a_side_are_known_however_they_are_spelt(name: str, told: bool) -> None:
    assert tells_side(name) is told


def test_small_structures_in_volumes_are_looked_for() -> None:
    plan = decide(BRAIN)
    assert plan.coarse is not None and "segments all of it" in (plan.reasons or {})["coarse"]
    assert plan.coarse.box == (60, 75, 45)  # half as large again as the structures
    assert max(plan.coarse.shape) <= 96 and min(plan.coarse.spacing) >= min(BRAIN.spacing)
    assert median_shape(plan, BRAIN) == plan.coarse.box
    assert decide(replace(BRAIN, extent=(150.0, 180.0, 150.0))).coarse is None
    assert decide(VESSELS).coarse is None and decide(NODULES).coarse is None


def test_small_structures_of_thin_boxes_are_still_volumes() -> None:
    plan = decide(replace(BRAIN, extent=(8.0, 8.0, 8.0)))
    assert plan.dims == 3 and plan.coarse is not None and min(plan.coarse.box) >= 16
