"""What decides masks is described once: the record, the calibration and the pages read it there."""

from __future__ import annotations

from dataclasses import fields

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
