"""The Dice to expect: it follows what predicts it, and its interval holds at its level."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from medsegdiff.core.types import Features
from medsegdiff.triage.expected_dice import (
    LEAST_CASES,
    LEVEL,
    ExpectedDice,
    fit_expected_dice,
)
from medsegdiff.triage.log_odds import log_odds


def cases_of(n: int, seed: int, signal: float) -> tuple[list[Features], list[float]]:
    """Cases whose Dice follows the ensemble's own expectation as far as ``signal``."""
    rng = np.random.default_rng(seed)
    own = rng.normal(2.0, 0.6, n)
    volume = rng.normal(7.0, 0.5, n)
    odds = 1.5 + signal * (own - 2.0) + 0.3 * rng.normal(size=n)
    cases = [
        {"ensemble": {"expected Dice of class 1": float(a), "volume of class 1": float(v)}}
        for a, v in zip(own, volume, strict=True)
    ]
    return cases, list(1.0 / (1.0 + np.exp(-odds)))


def fitted(cases: list[Features], dice: list[float]) -> ExpectedDice:
    found, _ = fit_expected_dice(1, cases, dice, [str(i) for i in range(len(cases))])
    assert found is not None
    return found


def test_it_follows_the_ensembles_own_expectation() -> None:
    cases, dice = cases_of(160, 0, signal=1.0)
    known = fitted(cases[:60], dice[:60])
    told = [known.of(case)["dice"] for case in cases[60:]]
    assert spearmanr(told, dice[60:]).statistic > 0.7
    assert np.mean(told) == pytest.approx(np.mean(dice[60:]), abs=0.02)


@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_the_interval_holds(signal: float) -> None:
    inside = []
    for seed in range(10):
        cases, dice = cases_of(140, seed, signal)
        known = fitted(cases[:40], dice[:40])
        for case, value in zip(cases[40:], dice[40:], strict=True):
            low, high = known.of(case)["interval"]
            inside.append(low <= value <= high)
    assert LEVEL - 0.03 <= np.mean(inside) <= LEVEL + 0.06


def test_few_cases_take_the_ensemble_at_its_word_and_many_speak_for_themselves() -> None:
    weights = []
    for n in (LEAST_CASES, 1000):
        cases, dice = cases_of(n, 3, signal=0.0)
        known = fitted(cases, dice)
        weights.append(known.slopes[0] / known.deviation[0])  # of the log-odds it expects
    assert weights[0] > 0.5 and abs(weights[1]) < 0.1


def test_a_case_far_from_all_others_has_a_lower_end_that_is_lower() -> None:
    cases, dice = cases_of(40, 0, 1.0)
    known = fitted(cases, dice)
    near, far = known.of(cases[0]), known.of(cases[0], beyond=2.0)
    assert far["interval"][0] < near["interval"][0]
    assert far["interval"][1] == near["interval"][1]
    low, middle, high = (log_odds(p) for p in (far["interval"][0], far["dice"], far["interval"][1]))
    assert middle == pytest.approx((low + high) / 2.0)


def test_nothing_is_expected_from_few_cases() -> None:
    cases, dice = cases_of(40, 0, 1.0)
    dice[LEAST_CASES - 1 :] = [np.nan] * (41 - LEAST_CASES)
    found, left_out = fit_expected_dice(1, cases, dice, [str(i) for i in range(40)])
    assert found is None and np.isnan(left_out).all()


def test_where_nothing_predicts_it_no_rank_is_made_up() -> None:
    ranks = []
    for seed in range(20):
        cases, dice = cases_of(40, seed, signal=0.0)
        _, left_out = fit_expected_dice(1, cases, dice, [str(i) for i in range(40)])
        ranks.append(spearmanr(left_out[:, 1], dice).statistic)
    assert abs(np.mean(ranks)) < 0.2


def test_it_survives_being_written() -> None:
    cases, dice = cases_of(40, 0, 1.0)
    known = fitted(cases, dice)
    again = ExpectedDice.from_json(json.loads(json.dumps(known.to_json())))
    assert again.of(cases[0]) == known.of(cases[0])
