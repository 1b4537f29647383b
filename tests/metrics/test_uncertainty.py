"""Against torchmetrics, scikit-learn, scipy and loops; risk and coverage by hand."""

from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import pytest
import torch
from scipy.stats import entropy, pearsonr
from sklearn.metrics import average_precision_score
from torchmetrics.functional.classification import binary_auroc

from medsegdiff.metrics.uncertainty import (
    aurc,
    case_uncertainty,
    correlation,
    e_aurc,
    error_auprc,
    error_auroc,
    error_overlap,
    mutual_information,
    pavpu,
    risk_coverage,
)


@pytest.mark.parametrize("shape", [(30, 20), (10, 9, 8)])
@pytest.mark.parametrize("levels", [5, 1000])
def test_auroc_agrees_with_torchmetrics_with_and_without_ties(
    shape: tuple[int, ...], levels: int
) -> None:
    rng = np.random.default_rng(0)
    error = rng.random(shape) < 0.2
    uncertainty = np.round((rng.random(shape) + 0.4 * error) * levels) / levels / 1.4
    inputs = torch.from_numpy(uncertainty).flatten(), torch.from_numpy(error).int().flatten()
    assert error_auroc(uncertainty, error) == pytest.approx(float(binary_auroc(*inputs)), abs=1e-6)


def test_auroc_of_perfect_inverted_and_constant_maps() -> None:
    error = np.array([False, False, True])
    assert error_auroc(np.array([0.0, 0.1, 0.2]), error) == 1.0
    assert error_auroc(np.array([0.2, 0.1, 0.0]), error) == 0.0
    assert error_auroc(np.zeros(3), error) == 0.5


@pytest.mark.parametrize("shape", [(30, 20), (10, 9, 8)])
@pytest.mark.parametrize("levels", [5, 1000])
def test_auprc_agrees_with_scikit_learn_and_overlap_with_all_thresholds(
    shape: tuple[int, ...], levels: int
) -> None:
    rng = np.random.default_rng(0)
    error = rng.random(shape) < 0.2
    uncertainty = np.round((rng.random(shape) + 0.4 * error) * levels) / levels
    expected = average_precision_score(error.ravel(), uncertainty.ravel())
    assert error_auprc(uncertainty, error) == pytest.approx(expected)
    above = [uncertainty >= threshold for threshold in np.unique(uncertainty)]
    dice = [2 * (a & error).sum() / (a.sum() + error.sum()) for a in above]
    assert error_overlap(uncertainty, error) == pytest.approx(max(dice))
    assert error_overlap(np.zeros(shape), error) == pytest.approx(dice[0])


def test_precision_and_overlap_of_a_perfect_map_and_of_chance() -> None:
    error = np.array([False, False, False, True])
    assert error_auprc(np.array([0.0, 0.1, 0.1, 0.2]), error) == 1.0
    assert error_overlap(np.array([0.0, 0.1, 0.1, 0.2]), error) == 1.0
    assert error_auprc(np.zeros(4), error) == 1 / 4
    assert error_overlap(np.zeros(4), error) == 2 / 5


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((8, 6), (2, 2)), ((7, 5), (2, 2)), ((5, 6, 7), (2, 2, 2)), ((6, 5, 3), (4, 4, 1))],
)
@pytest.mark.parametrize("level", [0.2, 0.5])
def test_pavpu_agrees_with_a_loop_over_patches(
    shape: tuple[int, ...], patch: tuple[int, ...], level: float
) -> None:
    rng = np.random.default_rng(0)
    error = rng.random(shape) < 0.4
    uncertainty = rng.random(shape) + 0.4 * error
    starts = [range(0, size, side) for size, side in zip(shape, patch, strict=True)]
    doubts, rights = [], []
    for corner in product(*starts):
        here = tuple(slice(c, c + side) for c, side in zip(corner, patch, strict=True))
        doubts.append(uncertainty[here].mean())
        rights.append((~error[here]).mean() > 0.5)
    threshold = min(doubts) + level * (max(doubts) - min(doubts))
    agree = [right == (doubt <= threshold) for right, doubt in zip(rights, doubts, strict=True)]
    assert pavpu(uncertainty, error, patch, level) == pytest.approx(np.mean(agree))
    assert 0.0 < np.mean(agree) < 1.0


def test_pavpu_of_perfect_inverted_and_constant_maps() -> None:
    error = np.zeros((4, 4), bool)
    error[:2, :2] = True
    assert pavpu(error.astype(np.float32), error) == 1.0
    assert pavpu(1.0 - error, error) == 0.0
    assert pavpu(np.zeros((4, 4)), error) == 3 / 4


def test_mutual_information_agrees_with_scipy() -> None:
    members = np.random.default_rng(0).dirichlet(np.ones(3), (4, 6, 5)).transpose(0, 3, 1, 2)
    expected = entropy(members.mean(axis=0)) - entropy(members, axis=1).mean(axis=0)
    np.testing.assert_allclose(mutual_information(members), expected, atol=1e-12)


def test_mutual_information_of_agreement_and_of_opposite_certainties() -> None:
    undecided = np.full((4, 2, 3), 0.5)
    np.testing.assert_allclose(mutual_information(undecided), 0.0)
    opposite = np.array([[[1.0], [0.0]], [[0.0], [1.0]]])
    np.testing.assert_allclose(mutual_information(opposite), math.log(2))


def test_undefined_where_all_is_right_or_all_is_wrong() -> None:
    u = np.arange(4.0)
    for error in (np.zeros(4, bool), np.ones(4, bool)):
        assert math.isnan(error_auroc(u, error))
        assert math.isnan(correlation(u, error))
    assert math.isnan(correlation(np.ones(4), np.array([0, 1, 0, 1])))
    assert math.isnan(error_auprc(u, np.zeros(4, bool)))
    assert math.isnan(error_overlap(u, np.zeros(4, bool)))
    assert error_auprc(u, np.ones(4, bool)) == error_overlap(u, np.ones(4, bool)) == 1.0


def test_correlation_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    error = rng.random((6, 7, 8)) < 0.3
    uncertainty = (rng.random(error.shape) + 0.2 * error).astype(np.float32)
    expected = pearsonr(uncertainty.ravel().astype(float), error.ravel().astype(float)).statistic
    assert correlation(uncertainty, error) == pytest.approx(expected, rel=1e-6)


def test_case_uncertainty_does_not_depend_on_size() -> None:
    mean, variance = np.full((4, 4), 0.5), np.full((4, 4), 0.1)
    larger = [np.concatenate([a, a]) for a in (mean, variance)]
    assert case_uncertainty(mean, variance) == pytest.approx(0.2)
    assert case_uncertainty(*larger) == pytest.approx(0.2)
    assert case_uncertainty(np.zeros(3), np.zeros(3)) == 0.0


def test_aurc_of_known_orders() -> None:
    risk = np.array([0.1, 0.2, 0.6])
    coverage, mean_risk = risk_coverage(np.array([1.0, 2.0, 3.0]), risk)
    np.testing.assert_allclose(coverage, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(mean_risk, [0.1, 0.15, 0.3])
    assert aurc(np.array([1.0, 2.0, 3.0]), risk) < aurc(np.array([3.0, 2.0, 1.0]), risk)
    assert aurc(np.array([1.0, 2.0, 3.0]), risk) == pytest.approx(np.mean([0.1, 0.15, 0.3]))
    assert math.isnan(aurc(np.array([]), np.array([])))


def test_aurc_of_ties_is_the_mean_over_their_orders() -> None:
    risk = np.array([0.1, 0.5, 0.9, 0.0])
    uncertainty = np.array([1.0, 1.0, 2.0, 0.5])
    orders = [np.cumsum(risk[list(o)]) / np.arange(1, 5) for o in ([3, 0, 1, 2], [3, 1, 0, 2])]
    assert aurc(uncertainty, risk) == pytest.approx(np.mean(orders))
    assert aurc(uncertainty[::-1], risk[::-1]) == pytest.approx(aurc(uncertainty, risk))


def test_e_aurc_is_the_excess_over_the_best_of_all_orders() -> None:
    risk = np.array([0.3, 0.1, 0.5, 0.2])
    uncertainty = np.array([0.4, 0.3, 0.1, 0.2])
    best = min(aurc(np.array(order, dtype=float), risk) for order in permutations(range(4)))
    assert e_aurc(uncertainty, risk) == pytest.approx(aurc(uncertainty, risk) - best)
    assert e_aurc(risk, risk) == pytest.approx(0.0)
    assert e_aurc(uncertainty, risk) > 0.0
    assert math.isnan(e_aurc(np.array([]), np.array([])))
