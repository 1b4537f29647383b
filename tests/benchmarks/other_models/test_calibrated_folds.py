"""The table of the benchmark: means over patients with their intervals, and rank correlations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.other_models.__main__ import CLASSES, FIGURES, GUARANTEES, summarised


def _cases(count: int, gain: float) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(count):
        dice = float(rng.uniform(0.5, 0.9))
        before = {name: dict.fromkeys(CLASSES, dice) for name in FIGURES}
        after: dict[str, Any] = {name: dict.fromkeys(CLASSES, dice + gain) for name in FIGURES}
        after["guarantee"] = {name: dict.fromkeys(CLASSES, 1.0) for name in GUARANTEES}
        expected = {"dice": 2.0 * dice, "interval": [dice, 1.0]}
        review = {"expected_dice": dict.fromkeys(CLASSES, expected)}
        cases.append({"before": before, "after": after, "review": review, "network": "fold_0"})
    return cases


def test_changes_are_of_the_same_patients() -> None:
    found = summarised(_cases(20, 0.1))
    change = found["figures"]["nll"]["anterior"]["change"]
    assert change == pytest.approx([0.1, 0.1, 0.1])  # though the patients differ by more
    mean, low, high = found["figures"]["nll"]["anterior"]["before"]
    assert low < mean < high and high - low > 0.05


def test_what_is_undefined_is_left_out_and_ranks_are_those_of_the_real_dice() -> None:
    cases = _cases(20, 0.0)
    cases[0]["after"]["guarantee"]["volume_covered"]["anterior"] = None
    cases[1]["after"]["guarantee"]["volume_covered"]["anterior"] = 0.0
    found = summarised(cases)
    assert found["guarantees"]["volume_covered"]["anterior"][0] == pytest.approx(18 / 19, abs=1e-4)
    assert found["expected_dice"]["posterior"]["rank_correlation"][0] == 1.0
    assert found["expected_dice"]["posterior"]["interval_holds"][0] == 1.0
