"""What decides masks is described once: the record, the calibration and the pages read it there."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest

from medsegdiff.core.sampling_settings import BINDING, SHOWN, SamplingSettings
from medsegdiff.segmentation.sliding_window import EnsembleInferer


def test_the_record_holds_every_setting() -> None:
    inferer = EnsembleInferer([8, 8], members=3, sampler_options={"eta": 0.5}, empty_up_to=None)
    names = {field.name for field in fields(SamplingSettings)}
    assert set(inferer.settings) == names
    assert inferer.settings["members"] == 3
    assert inferer.settings["sampler_options"] == {"eta": 0.5}
    assert SamplingSettings(**inferer.settings) == inferer.sampling


def test_a_calibration_is_bound_to_what_changes_the_probabilities() -> None:
    """Chance, the rule of the mask, and what is not run at all do not change the mean's meaning."""
    free = {"seed", "fusion", "empty_up_to"}
    assert set(BINDING) == {field.name for field in fields(SamplingSettings)} - free
    assert set(SHOWN) - {"bundle"} < set(SamplingSettings().to_record())


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="membrs"):
        EnsembleInferer([8, 8], membrs=3)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"members": 0}, "members and oversampling must be at least 1. Got 0, 1."),
        ({"oversampling": 0}, "members and oversampling must be at least 1. Got 16, 0."),
        ({"diversity_weight": 1.1}, "diversity_weight must be in [0, 1]. Got 1.1."),
        ({"anchor_share": -0.1}, "anchor_share must be in [0, 1]. Got -0.1."),
        ({"fusion": "median"}, "Got 'median'."),
        ({"warm_start": 0.0}, "warm_start must be in (0, 1]. Got 0.0."),
        ({"noise_scale": -1.0}, "noise_scale must be 0 or more. Got -1.0."),
        ({"empty_up_to": "all"}, "empty_up_to must be a number, 'lowest' or None. Got 'all'."),
        ({"empty_up_to": True}, "empty_up_to must be a number, 'lowest' or None. Got True."),
        ({"member_noise": [3, 3]}, "member_noise must name each noise once. Got [3, 3]."),
    ],
)
def test_a_setting_out_of_its_range_is_refused(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"{re.escape(said)}$"):
        SamplingSettings(**setting)


def test_the_ends_of_the_ranges_belong_to_them() -> None:
    lowest = SamplingSettings(members=1, anchor_share=0.0, noise_scale=0.0, empty_up_to=0.0)
    assert lowest.drawn == 1 and SamplingSettings(warm_start=1.0, diversity_weight=1.0).drawn == 16
