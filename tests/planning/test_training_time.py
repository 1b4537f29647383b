"""How many steps of how many patches fit into the hours."""

from __future__ import annotations

from math import prod

import pytest

from medsegdiff.planning.decisions import decide
from medsegdiff.planning.training_time import (
    LEAST_ANCHOR_STEPS,
    LEAST_BATCH,
    LEAST_PIXELS,
    LEAST_STEPS_OF_WIDE,
    MOST_ANCHOR_TIME,
    Times,
    faster,
    timed,
    with_fewer_features,
    with_smaller_batch,
)
from tests.planning.fingerprints import BRAIN, HEART, NODULES


def test_hours_become_steps() -> None:
    plan = decide(BRAIN)
    found = timed(plan, Times(0.4, 0.9, patches=0.1, validation=20.0), 1.0)
    steps = found.steps_per_epoch * found.epochs
    spent = 0.5 * found.anchor_steps + 1.0 * (steps - found.anchor_steps)
    validations = found.epochs // found.val_interval
    assert spent + 20.0 * validations == pytest.approx(0.95 * 3600, rel=0.05)
    assert validations >= 2 and 20.0 * validations <= 0.06 * 3600
    assert found.anchor_steps * 0.5 == pytest.approx(plan.anchor_time * spent, rel=0.05)
    assert 200 <= found.steps_per_epoch <= 300


def test_features_are_in_the_faster_order() -> None:
    plain = timed(decide(BRAIN), Times(0.4, 0.9), 1.0)
    assert plain.layout == "channels_last" and "layout" not in (plain.reasons or {})
    found = timed(decide(BRAIN), Times(0.3, 0.9, layout="contiguous", other=0.4), 1.0)
    assert found.layout == "contiguous"
    assert "0.30 s here, 0.40 s" in (found.reasons or {})["layout"]
    assert faster(1.0, 0.9) == "contiguous" and faster(0.9, 1.0) == "channels_last"
    assert faster(1.0, 0.97) == faster(1.0, None) == "channels_last"


def test_with_several_raters_the_encoder_has_the_steps_that_it_needs_first() -> None:
    plan, times = decide(NODULES), Times(0.4, 0.8)
    short, middle, long = (timed(plan, times, hours) for hours in (0.1, 0.2, 2.0))
    for found, share in ((short, MOST_ANCHOR_TIME), (middle, None), (long, plan.anchor_time)):
        steps = found.epochs * found.steps_per_epoch
        encoder, denoiser = 0.4 * found.anchor_steps, 0.8 * (steps - found.anchor_steps)
        if share is None:
            assert found.anchor_steps == pytest.approx(LEAST_ANCHOR_STEPS, rel=0.02)
        else:
            assert encoder / (encoder + denoiser) == pytest.approx(share, rel=0.02)
        assert ("anchor_steps" in (found.reasons or {})) == (found is not long)
    assert "anchor_steps" not in (timed(short, times, 2.0).reasons or {})
    assert timed(decide(BRAIN), times, 0.1).anchor_time == MOST_ANCHOR_TIME


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


def test_half_the_features_are_planned_once_where_steps_are_too_few() -> None:
    short, long = (timed(decide(HEART), Times(1.0, 2.0), hours) for hours in (0.2, 20.0))
    assert short.epochs * short.steps_per_epoch < LEAST_STEPS_OF_WIDE
    narrow = with_fewer_features(short)
    assert narrow.channels == (short.channels[0] // 2, *short.channels[:-1])
    assert "8 features" in (narrow.reasons or {})["channels"]
    assert (narrow.strides, narrow.denoiser_channels) == (short.strides, short.denoiser_channels)
    assert with_fewer_features(narrow) is narrow
    assert with_fewer_features(long) is long
    volumes = timed(decide(BRAIN), Times(1.0, 2.0), 0.2)
    assert with_fewer_features(volumes) is volumes
