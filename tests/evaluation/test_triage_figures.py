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


def test_all_figures_of_two_classes_by_hand() -> None:
    """Five cases with a review, one said to be unlike alone, and one without either."""
    dice = [{"a": v, "b": 1.0 - v} for v in (0.5, 0.6, 0.7, 0.8, 0.9)] + [{"a": 0.1, "b": 0.1}] * 2
    runs: list[dict[str, Any]] = []
    for number, one in enumerate(dice[:5]):
        expected = {
            "a": {"dice": one["a"], "interval": [one["a"], one["a"]]},
            "b": {"dice": -one["b"], "interval": [one["b"] + 0.1, 1.0]},
        }
        if number == 4:
            del expected["b"]
        review = {"expected_dice": expected, "level": 0.8, "score": [3, 1, 2, 4, 5][number]}
        runs.append({"review": review, "calibration": {"includes_this_case": number == 0}})
    runs += [{"unlike_training": {"p_value": 0.01}, "calibration": None}, {}]
    found = summarise_triage(dice, runs)["triage"]
    assert found == {
        "n_cases": 6,
        "fitted": 1,
        "unlike": 1.0,
        "rank_correlation": pytest.approx(1.0),  # of class b, four cases are too few
        # the lowest Dice of the cases are 0.5, 0.4, 0.3, 0.2, 0.1
        "rank_correlation_of_score": pytest.approx(-0.7),
        "intervals_hold": pytest.approx(5 / 9),  # limits included
        "level": 0.8,
    }


def test_without_reviews_only_what_is_unlike_is_counted() -> None:
    runs = [{"unlike_training": {"p_value": p}} for p in (0.01, 0.5)]
    found = summarise_triage([{"a": 0.5}] * 2, runs)["triage"]
    assert (found["n_cases"], found["unlike"]) == (2, 0.5)
    for name in ("rank_correlation", "rank_correlation_of_score", "intervals_hold", "level"):
        assert np.isnan(found[name]), name


def test_reviews_without_familiarity_say_nothing_of_it() -> None:
    runs = [{"review": record(v)["review"]} for v in (0.5, 0.6)]
    found = summarise_triage([{"nodule": 0.5}] * 2, runs)["triage"]
    assert np.isnan(found["unlike"]) and found["level"] == 0.9


@pytest.mark.parametrize(
    ("rank", "use"),
    [
        (0.29, "does not tell which cases are poor"),
        (0.3, "hints at the poor cases"),
        (0.59, "hints at the poor cases"),
        (0.6, "tells the poor cases well"),
    ],
)
def test_the_sentence_says_what_the_score_is_good_for(rank: float, use: str) -> None:
    found = {"rank_correlation_of_score": rank, "n_cases": 7, "fitted": 0, "unlike": 0.125}
    assert triage_sentence({"triage": found}) == (
        f"The score by which cases are ordered for review {use}: its rank correlation with the "
        f"lowest Dice of a case is {rank:.2f} on 7 cases. 12 % of the cases were said to be unlike "
        "the training."
    )
