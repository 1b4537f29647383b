"""Calibration error against torchmetrics and netcal, scores against torch and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from netcal.metrics import ACE, ECE, MCE
from torchmetrics.functional.classification import binary_calibration_error

from medsegdiff.metrics.calibration_error import brier, nll, region_of_interest, reliability


@pytest.fixture
def predicted() -> tuple[np.ndarray, np.ndarray]:
    """Overconfident probabilities (12, 11, 10) and what came true."""
    rng = np.random.default_rng(0)
    true = rng.beta(0.4, 0.6, (12, 11, 10))
    return np.clip(1.4 * (true - 0.5) + 0.5, 0, 1).astype(np.float32), rng.random(true.shape) < true


@pytest.mark.parametrize("bins", [10, 15])
def test_ece_agrees_with_torchmetrics_and_netcal(
    predicted: tuple[np.ndarray, np.ndarray], bins: int
) -> None:
    p, y = predicted
    ece = reliability(p, y, bins=bins).ece
    inputs = torch.from_numpy(p).double(), torch.from_numpy(y).int()
    assert ece == pytest.approx(float(binary_calibration_error(*inputs, n_bins=bins)), abs=1e-6)
    assert ece == pytest.approx(ECE(bins).measure(p.ravel(), y.astype(int).ravel()), abs=1e-6)
    assert ece > 0.02


@pytest.mark.parametrize("bins", [10, 15])
def test_ace_and_mce_agree_with_netcal_and_torchmetrics(
    predicted: tuple[np.ndarray, np.ndarray], bins: int
) -> None:
    p, y = predicted
    p = np.where((p > 0.3) & (p < 0.5), 0.63, p)  # some bins are empty
    p = np.minimum(p, 0.999)  # torchmetrics gives 1 a bin of its own
    found, flat = reliability(p, y, bins=bins), (p.ravel(), y.astype(int).ravel())
    inputs = torch.from_numpy(p).double(), torch.from_numpy(y).int()
    largest = float(binary_calibration_error(*inputs, n_bins=bins, norm="max"))
    assert found.ace == pytest.approx(ACE(bins).measure(*flat), abs=1e-6)
    assert found.mce == pytest.approx(MCE(bins).measure(*flat), abs=1e-6)
    assert found.mce == pytest.approx(largest, abs=1e-6)
    assert found.ece != pytest.approx(found.ace, rel=0.01)


@pytest.mark.parametrize("count", [2, 4])
def test_the_share_of_raters_is_what_each_of_them_observes(count: int) -> None:
    """As often as there are raters, each voxel with one of their answers: the same bins."""
    rng = np.random.default_rng(0)
    p = rng.random((9, 8))
    raters = rng.random((count, *p.shape)) < 0.7 * p
    repeated = reliability(np.broadcast_to(p, raters.shape), raters)
    shares = reliability(p, raters.mean(axis=0))
    np.testing.assert_array_equal(repeated.count, count * shares.count)
    np.testing.assert_allclose(repeated.positive, count * shares.positive)
    for name in ("ece", "ace", "mce"):
        assert getattr(shares, name) == pytest.approx(getattr(repeated, name))


def test_stating_the_share_of_raters_is_calibrated_and_stating_the_majority_is_not() -> None:
    share = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    assert reliability(share, share).ece == reliability(share, share).mce == 0.0
    assert reliability((share > 0.5).astype(float), share).ece == pytest.approx(0.2)


def test_bins_of_parts_add_up_to_those_of_the_whole(
    predicted: tuple[np.ndarray, np.ndarray],
) -> None:
    p, y = predicted
    whole, parts = reliability(p, y), reliability(p[:5], y[:5]) + reliability(p[5:], y[5:])
    np.testing.assert_array_equal(parts.count, whole.count)
    np.testing.assert_array_equal(parts.positive, whole.positive)
    np.testing.assert_allclose(parts.confidence, whole.confidence)
    assert whole.count.sum() == p.size
    assert parts.ece == pytest.approx(whole.ece)


def test_only_the_region_is_counted(predicted: tuple[np.ndarray, np.ndarray]) -> None:
    p, y = predicted
    region = np.zeros(p.shape, bool)
    region[2:5] = True
    inside = reliability(p, y, region)
    np.testing.assert_array_equal(inside.count, reliability(p[2:5], y[2:5]).count)
    nothing = reliability(p, y, np.zeros(p.shape, bool))
    assert math.isnan(nothing.ece) and math.isnan(nothing.ace) and math.isnan(nothing.mce)


def test_frequency_and_confidence_of_known_bins() -> None:
    p, y = np.array([0.0, 0.05, 0.55, 0.6, 1.0]), np.array([0, 1, 1, 0, 1])
    bins = reliability(p, y, bins=2)
    np.testing.assert_array_equal(bins.count, [2, 3])
    np.testing.assert_allclose(bins.frequency, [1 / 2, 2 / 3])
    np.testing.assert_allclose(bins.confidence, [0.025, 2.15 / 3])
    assert bins.ece == pytest.approx((0.95 + 0.15) / 5)
    assert bins.ace == pytest.approx((0.95 / 2 + 0.15 / 3) / 2)
    assert bins.mce == pytest.approx(0.95 / 2)


@pytest.mark.parametrize("ndim", [2, 3])
def test_region_grows_by_face_neighbours(ndim: int) -> None:
    seed = np.zeros((15,) * ndim, bool)
    seed[(7,) * ndim] = True
    steps = np.abs(np.indices(seed.shape) - 7).sum(axis=0)
    np.testing.assert_array_equal(region_of_interest(seed), steps <= 5)
    np.testing.assert_array_equal(region_of_interest(seed, 0), seed)
    assert not region_of_interest(np.zeros_like(seed)).any()


def test_scores_agree_with_torch_for_hard_and_soft_references(
    predicted: tuple[np.ndarray, np.ndarray],
) -> None:
    p, y = predicted
    p = np.clip(p, 0.01, 0.99)
    for reference in (y.astype(float), np.random.default_rng(1).choice([0, 0.25, 0.75], y.shape)):
        inputs = torch.from_numpy(p).double(), torch.from_numpy(reference)
        assert nll(p, reference) == pytest.approx(
            float(torch.nn.functional.binary_cross_entropy(*inputs))
        )
        assert brier(p, reference) == pytest.approx(float(torch.nn.functional.mse_loss(*inputs)))


def test_likelihood_is_clamped() -> None:
    assert nll(np.array([0.0]), np.array([1.0])) == pytest.approx(-math.log(1e-7))
    assert nll(np.array([1.0]), np.array([0.0])) == pytest.approx(-math.log(1e-7))
    assert nll(np.array([1.0]), np.array([1.0])) == pytest.approx(0.0, abs=1e-6)
