"""What risk control and intervals promise is reached on exchangeable cases, and not by far."""

from __future__ import annotations

import numpy as np
import pytest

from medsegdiff.calibration.conformal import (
    THRESHOLDS,
    controlled,
    expected_volume,
    inner_threshold,
    outer_threshold,
    risk_curves,
    volume_interval,
    volume_score,
)


def cases(n: int, seed: int = 0, voxels: int = 800) -> list[tuple[np.ndarray, np.ndarray]]:
    """(p, reference) of cases whose quality differs: each is off by a shift of its own."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        z = rng.normal(0.0, 2.5, voxels) - 1.0
        reference = rng.random(voxels) < 1 / (1 + np.exp(-(z + rng.normal(0.0, 0.7))))
        found.append((1 / (1 + np.exp(-z)), reference))
    return found


def test_risk_curves_are_what_counting_gives() -> None:
    ((p, reference),) = cases(1)
    missed, wrong = risk_curves(p, reference)
    raw = []
    for i, threshold in enumerate(THRESHOLDS):
        mask = p >= threshold
        assert missed[i] == pytest.approx((reference & ~mask).sum() / reference.sum())
        raw.append((mask & ~reference).sum() / max(mask.sum(), 1))
    np.testing.assert_allclose(wrong, [max(raw[i:]) for i in range(len(raw))])
    assert (np.diff(missed) >= 0).all() and (np.diff(wrong) <= 0).all()


def test_a_voxel_at_a_threshold_is_inside() -> None:
    p = THRESHOLDS[[10, 50, 198]]
    missed, _ = risk_curves(p, np.ones(3, bool))
    np.testing.assert_allclose(missed[[10, 11, 50, 51, 198]], [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])


def test_an_empty_reference_misses_nothing_and_an_empty_mask_holds_nothing_wrong() -> None:
    missed, wrong = risk_curves(np.array([0.3, 0.0]), np.zeros(2, bool))
    assert not missed.any()
    assert wrong[THRESHOLDS <= 0.3].tolist() == [1.0] * 60 and not wrong[60:].any()
    missed, wrong = risk_curves(np.zeros(4), np.ones(4, bool))
    assert (missed == 1).all() and not wrong.any()


def test_risk_is_controlled_over_random_splits_and_close_to_the_level() -> None:
    every = cases(300)
    curves = np.array([risk_curves(*case) for case in every])  # (n, 2, L)
    rng, n, alpha = np.random.default_rng(1), 150, 0.1
    missed, wrong = [], []
    for _ in range(300):
        order = rng.permutation(len(every))
        fit, test = curves[order[:n]].mean(0), curves[order[n:]].mean(0)
        outer, inner = outer_threshold(fit[0], n, alpha), inner_threshold(fit[1], n, alpha)
        assert inner is not None
        missed.append(test[0][np.flatnonzero(outer == THRESHOLDS)[0]])
        wrong.append(test[1][np.flatnonzero(inner == THRESHOLDS)[0]])
    for reached in (np.mean(missed), np.mean(wrong)):
        assert alpha - 0.02 <= reached <= alpha + 2e-3


@pytest.mark.parametrize("n", [1, 5, 8])
def test_too_few_cases_promise_nothing(n: int) -> None:
    perfect = np.zeros(len(THRESHOLDS))
    assert not controlled(perfect, n, 0.1).any()
    assert outer_threshold(perfect, n, 0.1) == 0.0 and inner_threshold(perfect, n, 0.1) is None
    assert volume_interval(np.ones(n), 0.1, 5.0, 1.0) == (0.0, None)
    assert controlled(perfect, 9, 0.1).all()
    assert volume_interval(np.ones(9), 0.1, 5.0, 1.0) == (4.0, 6.0)


def test_where_no_threshold_reaches_alpha_the_masks_are_all_and_nothing() -> None:
    poor = np.full(len(THRESHOLDS), 0.5)
    assert outer_threshold(poor, 1000, 0.1) == 0.0
    assert inner_threshold(poor, 1000, 0.1) is None


def test_volumes_are_covered_over_random_splits() -> None:
    every = cases(300)
    facts = np.array([(reference.sum(), *expected_volume(p)) for p, reference in every])
    scores = np.array([volume_score(*fact) for fact in facts])
    rng, n = np.random.default_rng(2), 150
    for alpha in (0.1, 0.05):
        inside = []
        for _ in range(300):
            order = rng.permutation(len(every))
            fitted = np.sort(scores[order[:n]])
            for volume, expected, doubt in facts[order[n:]]:
                low, high = volume_interval(fitted, alpha, expected, doubt)
                assert high is not None
                inside.append(low - 1e-9 <= volume <= high + 1e-9)
        assert 1 - alpha - 2e-3 <= np.mean(inside) <= 1 - alpha + 0.02


def test_the_expected_volume_leaves_out_the_tails_of_a_large_image() -> None:
    p = np.concatenate([np.full(1_000_000, 1e-4), [0.5, 1.0]])
    assert expected_volume(p) == pytest.approx((1.5, 1.25))
    assert expected_volume(np.zeros(5)) == (0.0, 1.0)


def test_the_doubt_does_not_depend_on_the_sampling() -> None:
    p = np.linspace(0.01, 0.99, 400)
    fine = np.repeat(p, 64)
    (_, coarse), (_, doubt) = expected_volume(p), expected_volume(fine)
    assert (doubt - 1) / 64 == pytest.approx(coarse - 1)
