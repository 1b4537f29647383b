"""Intervals by bootstrap: of the right width, and over patients rather than cases."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from medsegdiff.evaluation.case_figures import CaseResult
from medsegdiff.evaluation.summary import bootstrap


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
