"""AUROC against torchmetrics, correlation against scipy, risk and coverage by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torchmetrics.functional.classification import binary_auroc

from medsegdiff.evaluation.uncertainty import (
    aurc,
    case_uncertainty,
    error_auroc,
    error_correlation,
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


def test_undefined_where_all_is_right_or_all_is_wrong() -> None:
    for error in (np.zeros(4, bool), np.ones(4, bool)):
        assert math.isnan(error_auroc(np.arange(4.0), error))
        assert math.isnan(error_correlation(np.arange(4.0), error))
    assert math.isnan(error_correlation(np.ones(4), np.array([0, 1, 0, 1])))


def test_correlation_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    error = rng.random((6, 7, 8)) < 0.3
    uncertainty = (rng.random(error.shape) + 0.2 * error).astype(np.float32)
    expected = pearsonr(uncertainty.ravel().astype(float), error.ravel().astype(float)).statistic
    assert error_correlation(uncertainty, error) == pytest.approx(expected, rel=1e-6)


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
