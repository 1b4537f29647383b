"""What the records said of cases, beside what their references show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medsegdiff.evaluation.triage_figures import summarise_triage, triage_sentence


def record(expected: float, p: float = 0.5) -> dict[str, Any]:
    one = {"dice": expected, "interval": [expected - 0.1, expected + 0.1]}
    review = {"expected_dice": {"nodule": one}, "level": 0.9, "score": expected - 0.1}
    return {"review": review, "unlike_training": {"p_value": p, "reasons": []}}


def test_a_score_that_ranks_as_the_dice_does() -> None:
    values = np.linspace(0.5, 0.9, 10)
    dice = [{"nodule": float(v)} for v in values]
    runs = [record(float(v) + 0.05, p=0.01 if v < 0.55 else 0.5) for v in values]
    found = summarise_triage(dice, runs)["triage"]
    assert found["rank_correlation"] == found["rank_correlation_of_score"] == pytest.approx(1.0)
    assert found["intervals_hold"] == 1.0 and found["unlike"] == pytest.approx(0.2)
    assert "tells the poor cases well" in triage_sentence({"triage": found})


def test_a_score_that_says_nothing() -> None:
    dice = [{"nodule": v} for v in (0.5, 0.9, 0.6, 0.8, 0.7, 0.75)]
    runs = [record(v) for v in (0.9, 0.95, 0.91, 0.92, 0.95, 0.9)]
    found = summarise_triage(dice, runs)["triage"]
    assert found["intervals_hold"] < 0.7
    assert "fitted" in found and found["fitted"] == 0


def test_undefined_dice_does_not_count() -> None:
    dice = [{"nodule": float("nan")}] * 3 + [{"nodule": 0.5}] * 3
    found = summarise_triage(dice, [record(0.5)] * 6)["triage"]
    assert found["intervals_hold"] == 1.0 and np.isnan(found["rank_correlation"])
    assert triage_sentence({"triage": found}) == ""


def test_records_without_say_nothing() -> None:
    assert summarise_triage([{"nodule": 0.5}], [{"review": None}]) == {}
    assert triage_sentence({}) == ""


@pytest.mark.parametrize("constant", ["expected", "real"])
def test_ranks_of_what_is_always_the_same_are_undefined(constant: str) -> None:
    values = [float(v) for v in np.linspace(0.5, 0.9, 10)]
    expected = [0.7] * 10 if constant == "expected" else values
    dice = [{"nodule": 0.7 if constant == "real" else v} for v in values]
    found = summarise_triage(dice, [record(v) for v in expected])["triage"]
    assert np.isnan(found["rank_correlation"]) and np.isnan(found["rank_correlation_of_score"])
