"""The p-value of a case among others: valid, sensitive, and not fooled by what never varies."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from medsegdiff.core.types import Features
from medsegdiff.triage.familiarity import LEAST_PATIENTS, Familiarity, crossed, fit_familiarity


def described(values: NDArray[np.float64], spacing: float = 1.0) -> Features:
    """Features of a case: one group that varies, and a spacing that all cases share."""
    names = {f"quantile {i}": float(v) for i, v in enumerate(values)}
    return {"intensity": names, "geometry": {"spacing 1 (mm)": float(np.log(spacing))}}


def drawn(n: int, d: int, seed: int) -> list[Features]:
    """Cases with correlated features."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(d, d))
    return [described(mixing @ rng.normal(size=d)) for _ in range(n)]


def fitted(cases: list[Features]) -> Familiarity:
    found = fit_familiarity(cases, [str(i) for i in range(len(cases))])
    assert found is not None
    return found


@pytest.mark.parametrize(("n", "d"), [(20, 5), (40, 30), (200, 10)])
def test_at_most_a_share_p_of_like_cases_is_below_p(n: int, d: int) -> None:
    low = []
    for seed in range(8):
        cases = drawn(n + 60, d, seed)
        known = fitted(cases[:n])
        low += [known.p_value(case) for case in cases[n:]]
    for p in (0.05, 0.1, 0.3):
        assert np.mean(np.array(low) < p) <= p + 0.05


@pytest.mark.parametrize("d", [5, 30])
def test_a_case_from_elsewhere_is_found(d: int) -> None:
    cases = drawn(41, d, 0)
    known = fitted(cases[:40])
    other = described(np.array(list(cases[40]["intensity"].values())) + 12.0)
    assert known.p_value(other) == pytest.approx(1 / 41)
    assert any("quantile" in reason for reason in known.reasons(other))


def test_a_spacing_that_never_varied_counts_from_ten_per_cent_on() -> None:
    cases = drawn(40, 4, 1)
    known, like = fitted(cases), cases[3]
    assert known.p_value({**like, "geometry": {"spacing 1 (mm)": np.log(2.0)}}) < 0.05
    assert known.p_value({**like, "geometry": {"spacing 1 (mm)": np.log(1.001)}}) > 0.05


def test_features_that_a_case_does_not_have_are_left_out() -> None:
    cases = drawn(40, 4, 1)
    known = fitted(cases)
    without = {"intensity": cases[5]["intensity"]}
    assert known.distance(without) <= known.distance(cases[5])
    assert known.distance({}) == 0.0


def test_too_few_patients_say_nothing() -> None:
    cases = drawn(30, 4, 1)
    assert fit_familiarity(cases, [str(i % (LEAST_PATIENTS - 1)) for i in range(30)]) is None


def test_a_patient_is_never_on_both_sides() -> None:
    patients = [f"p{i // 3}" for i in range(30)]
    left_out = []
    for others, own in crossed(patients):
        assert not {patients[i] for i in others} & {patients[i] for i in own}
        left_out += own
    assert sorted(left_out) == list(range(30))


def test_it_survives_being_written() -> None:
    cases = drawn(40, 4, 1)
    known = fitted(cases)
    again = Familiarity.from_json(json.loads(json.dumps(known.to_json())))
    assert [again.p_value(c) for c in cases] == [known.p_value(c) for c in cases]
