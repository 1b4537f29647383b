"""Decisions on made-up fingerprints: what must hold of any plan, and what of some."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest

from medsegdiff.planning.decisions import (
    LEAST_BATCH,
    LEAST_PIXELS,
    LEAST_SIDE,
    VOXELS,
    Times,
    decide,
    multiples,
    timed,
    topology,
    with_smaller_batch,
)
from medsegdiff.planning.fingerprint import Fingerprint, tells_side

BRAIN = Fingerprint(
    name="brain",
    dims=3,
    labels={0: "background", 1: "nucleus"},
    channels=("MR",),
    raters=1,
    cases=40,
    patients=40,
    photographs=False,
    stacks=False,
    shape=(180, 220, 180),
    largest=(200, 256, 200),
    spacing=(1.0, 1.0, 1.0),
    finest=(1.0, 1.0, 1.0),
    extent=(40.0, 50.0, 30.0),
    thickness=12.0,
    share=0.01,
    present={1: 40},
    folds={1: 5},
    ordered=(False, False, False),
    sides=False,
    intensity=((100.0, 20.0, 40.0, 180.0),),
    darkest=0.0,
)
HEART = replace(
    BRAIN,
    labels={0: "background", 1: "right ventricle", 2: "left ventricle"},
    shape=(216, 256, 9),
    largest=(260, 300, 18),
    spacing=(1.5, 1.5, 10.0),
    finest=(1.4, 1.4, 5.0),
    ordered=(True, False, False),
    sides=True,
)
CT = replace(
    BRAIN,
    channels=("CT",),
    shape=(512, 512, 90),
    largest=(512, 512, 400),
    spacing=(0.8, 0.8, 5.0),
    finest=(0.7, 0.7, 1.5),
    intensity=((40.0, 60.0, -90.0, 250.0),),
    darkest=-1000.0,
)
PHOTOGRAPH = replace(
    BRAIN,
    dims=2,
    channels=("red", "green", "blue"),
    photographs=True,
    shape=(800, 540),
    largest=(800, 540),
    spacing=(1.0, 1.0),
    finest=(1.0, 1.0),
    extent=(500.0, 380.0),
    thickness=180.0,
    ordered=(False, False),
    intensity=((100.0, 20.0, 40.0, 180.0),) * 3,
)
VESSELS = replace(PHOTOGRAPH, shape=(999, 960), largest=(999, 960), thickness=5.0)
NODULES = replace(
    BRAIN, raters=4, shape=(64, 64, 5), largest=(64, 64, 40), stacks=False, labels={0: "b", 1: "n"}
)
TINY = replace(BRAIN, shape=(16, 16, 16), largest=(16, 16, 16))
ALL = {
    "brain": BRAIN,
    "heart": HEART,
    "ct": CT,
    "photograph": PHOTOGRAPH,
    "vessels": VESSELS,
    "nodules": NODULES,
    "tiny": TINY,
}


@pytest.mark.parametrize("of", ALL.values(), ids=ALL)
def test_any_plan_is_whole(of: Fingerprint) -> None:
    plan = decide(of)
    assert len(plan.patch) == len(plan.window) == len(plan.stride) == plan.dims
    assert len(plan.strides) == len(plan.kernels) == len(plan.channels)
    stem = max(plan.strides[0]) > 1
    assert 2 <= len(plan.denoiser_channels) <= len(plan.channels) - int(not stem)
    for sides in (plan.patch, plan.window):
        assert all(n % m == 0 for n, m in zip(sides, multiples(plan.strides), strict=True))
    assert prod(plan.patch) <= 1.5 * VOXELS[plan.dims]
    assert max(plan.stride) == 2 and plan.strides[0] == (plan.stride if stem else (1,) * plan.dims)
    assert plan.batch >= 2 and all(axis < plan.dims for axis in plan.mirror)
    for name in ("dims", "patch", "strides", "window", "mirror", "batch", "raters", "rotation"):
        assert plan.reasons is not None and plan.reasons[name], name
    assert plan.smaller() != plan


def test_volumes_are_planned_in_three_dimensions() -> None:
    plan = decide(BRAIN)
    assert (plan.dims, plan.slices, plan.axcodes, plan.spacing) == (3, False, "RAS", (1.0,) * 3)
    assert plan.foreground == 0.5 and plan.mirror == (0, 1, 2)
    assert plan.window == plan.patch and plan.anchor_time > 0


def test_thick_structures_need_no_level_of_the_image_s_size() -> None:
    thick, thin = decide(BRAIN), decide(replace(BRAIN, thickness=4.0))
    assert thick.strides[0] == thick.stride == (2, 2, 2) and thin.strides[0] == (1, 1, 1)
    assert multiples(thick.strides) == multiples(thin.strides)
    assert thick.channels == thin.channels[1:]
    flat = decide(replace(CT, finest=(0.8, 0.8, 5.0)))
    assert flat.strides[0] == (2, 2, 1)


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


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 8.0), (1.0, 3.0, 1.0), (2.0, 1.0, 1.0)])
def test_no_axis_falls_below_its_least_side(spacing: tuple[float, ...]) -> None:
    patch = (64, 48, 12)
    strides, kernels = topology(patch, spacing, 5, {})
    size, space = list(patch), list(spacing)
    for step, kernel in zip(strides, kernels, strict=True):
        assert all(k == 1 or s < 2 * min(space) for k, s in zip(step, space, strict=True))
        size = [n // k for n, k in zip(size, step, strict=True)]
        space = [s * k for s, k in zip(space, step, strict=True)]
        assert all((k == 3) == (s < 2 * min(space)) for k, s in zip(kernel, space, strict=True))
    assert min(size) >= LEAST_SIDE


def test_large_thick_structures_of_photographs_are_made_smaller() -> None:
    large, thin = decide(PHOTOGRAPH), decide(VESSELS)
    assert large.spacing[0] == large.spacing[1] > 2.0
    assert thin.spacing == ()
    assert large.dims == thin.dims == 2 and not large.slices


def test_raters_are_learned_from_at_once() -> None:
    plan = decide(NODULES)
    assert plan.several_raters and plan.anchor_time < decide(BRAIN).anchor_time


def test_hours_become_steps() -> None:
    plan = decide(BRAIN)
    found = timed(plan, Times(0.4, 0.9, patches=0.1, validation=20.0), 1.0)
    steps = found.steps_per_epoch * found.epochs
    spent = 0.5 * found.anchor_steps + 1.0 * (steps - found.anchor_steps)
    validations = found.epochs // found.val_interval
    assert spent + 20.0 * validations == pytest.approx(0.95 * 3600, rel=0.05)
    assert validations >= 2 and 20.0 * validations <= 0.11 * 3600
    assert found.anchor_steps * 0.5 == pytest.approx(plan.anchor_time * spent, rel=0.05)
    assert 200 <= found.steps_per_epoch <= 300


@pytest.mark.parametrize("hours", [1e-6, 0.001, 0.01])
@pytest.mark.parametrize("times", [Times(0.5, 1.0), Times(0.5, 5.0, 0.1, 600.0)])
def test_the_shortest_training_has_a_step_of_the_denoiser(times: Times, hours: float) -> None:
    found = timed(decide(BRAIN), times, hours)
    assert 1 <= found.val_interval <= found.epochs <= 10
    assert found.anchor_steps < found.epochs * found.steps_per_epoch


def test_too_few_steps_become_more_of_fewer_patches() -> None:
    heart = timed(decide(HEART), Times(1.0, 2.0), 0.2)
    smaller = with_smaller_batch(heart)
    assert heart.batch > smaller.batch >= LEAST_BATCH[2]
    assert "not" in (smaller.reasons or {})["batch"]
    enough = timed(decide(HEART), Times(1.0, 2.0), 20.0)
    assert with_smaller_batch(enough) is enough
    nodules = with_smaller_batch(timed(decide(NODULES), Times(0.1, 0.2), 0.01))
    assert nodules.batch * prod(nodules.patch) >= LEAST_PIXELS


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *((side, True) for side in ("LeftKidney", "kidney_left", "lt kidney", "right1", "lung-L")),
        *((other, False) for other in ("liver", "cleft", "bright spot")),
    ],
)
def test_labels_of_a_side_are_known_however_they_are_spelt(name: str, told: bool) -> None:
    assert tells_side(name) is told
