"""Intervals by bootstrap: of the right width, and over patients rather than cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from medsegdiff.evaluation.case_figures import CaseResult
from medsegdiff.evaluation.summary import bootstrap, count_undefined, summarise
from medsegdiff.metrics.calibration_error import reliability
from medsegdiff.metrics.overlap import OVERLAP
from medsegdiff.metrics.table import METRICS


def results(values: np.ndarray, patients: list[str]) -> list[CaseResult]:
    return [
        CaseResult(f"{i}", patient, {"dice": {"a": float(v), "mean": float(v)}}, {"a": True})
        for i, (v, patient) in enumerate(zip(values, patients, strict=True))
    ]


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).beta(8, 2, 40)
    low, high = bootstrap(results(values, [str(i) for i in range(40)]), ["a"], "dice")["a"]
    options = {"method": "percentile", "n_resamples": 5000, "rng": np.random.default_rng(1)}
    expected = scipy_bootstrap((values,), np.mean, **options).confidence_interval
    assert low == pytest.approx(expected.low, abs=0.1 * (high - low))
    assert high == pytest.approx(expected.high, abs=0.1 * (high - low))


def test_cases_of_one_patient_enter_and_leave_together() -> None:
    values = np.random.default_rng(0).beta(8, 2, 20)
    once = bootstrap(results(values, [str(i) for i in range(20)]), ["a"], "dice")
    # Each case four times over tells nothing new, so the interval must not shrink.
    repeated = results(np.repeat(values, 4), [str(i) for i in range(20) for _ in range(4)])
    assert bootstrap(repeated, ["a"], "dice")["a"] == pytest.approx(once["a"])


def test_undefined_cases_are_left_out_and_one_patient_gives_no_interval() -> None:
    values = np.array([0.5, np.nan, 0.7, 0.6])
    low, high = bootstrap(results(values, list("abcd")), ["a"], "dice")["a"]
    assert 0.5 <= low < high <= 0.7
    assert np.isnan(bootstrap(results(values, list("aaaa")), ["a"], "dice")["mean"]).all()


def case(number: int, patient: str, a: float, b: float, **known: Any) -> CaseResult:
    """A case of two classes with the same value in every metric of overlap, and of one set."""
    own = {"a": a, "b": b, "mean": (a + b) / 2}
    values = {name: dict(own) for name in OVERLAP} | {
        "ged2": {"a": b, "b": a, "mean": 0.1 * number}
    }
    return CaseResult(str(number), patient, values, {"a": a > 0.0, "b": True}, **known)


def bins(p: float, y: float) -> dict[str, Any]:
    return {"image": reliability(np.array([p]), np.array([y]), bins=2)}


CASES = [
    case(
        1,
        "x",
        0.0,
        0.5,
        uncertainty={"a": 0.3, "b": 0.1, "mean": 0.2},
        members_dice={"a": 0.1, "b": 0.2, "mean": 0.15},
        maps_auroc={"variance": 0.9},
        reliability={"a": bins(0.2, 0.0), "b": {}},
        planes={"judged": 3, "s_ncc": 1},
        run={"calibration": {"includes_this_case": True}},
    ),
    case(
        2,
        "x",
        0.5,
        1.0,
        uncertainty={"a": 0.2, "mean": 0.2},
        maps_auroc={"variance": 0.7, "entropy": 0.6},
        reliability={"a": bins(0.4, 1.0), "b": {}},
        planes={"judged": 2, "s_ncc": 2},
    ),
    case(
        3,
        "y",
        1.0,
        float("nan"),
        uncertainty={"a": 0.1, "mean": 0.1},
        members_dice={"a": 0.5, "b": 0.4, "mean": 0.45},
        anchor_dice={"a": 1.0, "b": 0.0, "mean": 0.5},
        reliability={"a": {}, "b": {}},
    ),
]


def test_means_and_counts_by_hand() -> None:
    found = summarise(CASES, ["a", "b"])
    for name in OVERLAP:
        assert found[name] == pytest.approx({"a": 0.5, "b": 0.75, "mean": 0.625})
        # where the reference has the class: not the first case of a
        assert found["non_empty"][name] == pytest.approx({"a": 0.75, "b": 0.75, "mean": 0.75})
    assert found["ged2"] == pytest.approx({"a": 0.75, "b": 0.5, "mean": 0.2})  # of the cases' own
    assert (found["n_cases"], found["n_patients"], found["n_fitted"]) == (3, 2, 1)
    assert found["any_class_auroc"] == pytest.approx({"variance": 0.8, "entropy": 0.6})
    assert found["planes"] == {"judged": 5, "s_ncc": 3}
    assert set(found["confidence_95"]) == {*OVERLAP, "ged2"}
    assert "planes" not in summarise(CASES[2:], ["a", "b"])
    assert "guarantee" not in found and "triage" not in found


def test_the_ensemble_is_compared_on_the_cases_that_have_members() -> None:
    found = summarise([CASES[0], replace(CASES[2], values=CASES[1].values)], ["a", "b"])
    assert found["members"] == {
        "dice": pytest.approx({"a": 0.3, "b": 0.3, "mean": 0.3}),
        "ensemble_gain": pytest.approx(((0.25 - 0.15) + (0.75 - 0.45)) / 2),
        "n_cases": 2,
    }
    assert found["anchor"]["dice"] == {"a": 1.0, "b": 0.0, "mean": 0.5}
    assert found["anchor"]["ensemble_gain"] == pytest.approx(0.25)
    assert found["anchor"]["n_cases"] == 1
    assert "members" not in summarise(CASES[1:2], ["a", "b"])


def test_figures_of_many_cases_are_of_those_with_uncertainty() -> None:
    found = summarise(CASES, ["a", "b"])
    # of a, uncertainty 0.1, 0.2, 0.3 has risk 0, 0.5, 1: the best order
    assert found["aurc"]["a"] == pytest.approx((0.0 + 0.25 + 0.5) / 3)
    assert found["aurc"]["b"] == pytest.approx(0.5)  # of one case
    assert found["aurc"]["mean"] == pytest.approx((0.25 + 0.5) / 2)
    assert found["e_aurc"]["a"] == pytest.approx(0.0)


def test_bins_are_those_of_all_cases_together() -> None:
    found = summarise(CASES, ["a", "b"])["reliability"]
    assert found["b"] is None and set(found["a"]) == {"image"}
    image = found["a"]["image"]
    assert image["count"] == [2, 0]
    assert image["confidence"][0] == pytest.approx(0.3) and image["frequency"][0] == 0.5
    assert np.isnan(image["confidence"][1]) and np.isnan(image["frequency"][1])
    for name in ("ece", "ace", "mce"):
        assert image[name] == pytest.approx(0.2)


def test_undefined_figures_are_counted_by_class() -> None:
    found = count_undefined(CASES, ["a", "b"])
    assert found["dice"] == {"a": 0, "b": 1} and found["ged2"] == {"a": 1, "b": 0}
    of_cases = [one.name for one in METRICS if one.of_cases]
    assert of_cases and set(found) == {*OVERLAP, "ged2", *of_cases}
    for name in of_cases:
        assert found[name] == {"a": 0, "b": 2}


def test_intervals_are_the_same_each_time_and_of_all_patients() -> None:
    values = np.random.default_rng(0).random(12)
    given = results(values, [str(i // 2) for i in range(12)])
    first = bootstrap(given, ["a"], "dice")
    assert first == bootstrap(given, ["a"], "dice") and first["mean"] == first["a"]
    assert set(first) == {"a", "mean"}
    undefined = bootstrap(results(np.full(3, np.nan), list("abc")), ["a"], "dice")["a"]
    assert len(undefined) == 2 and np.isnan(undefined).all()
    two = bootstrap(results(np.array([0.0, 1.0]), list("ab")), ["a"], "dice")["a"]
    assert two == [0.0, 1.0]


def test_the_interval_of_sample_sets_is_of_the_cases_own_means() -> None:
    found = bootstrap(CASES, ["a", "b"], "ged2")
    assert set(found) == {"a", "b", "mean"} and found["mean"] == pytest.approx([0.15, 0.3])


def test_the_interval_over_classes_is_of_the_mean_of_their_means() -> None:
    """Not of the cases' own means, which leave out classes that are undefined in a case."""
    given = [
        CaseResult(str(i), str(i), {"dice": {"a": a, "b": b, "mean": mean}}, {})
        for i, (a, b, mean) in enumerate([(1.0, 0.0, 0.5), (1.0, float("nan"), 1.0)] * 4)
    ]
    found = bootstrap(given, ["a", "b"], "dice")
    assert found == {"a": [1.0, 1.0], "b": [0.0, 0.0], "mean": [0.5, 0.5]}
