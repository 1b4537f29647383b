"""The fit undoes a distortion that is known, and its gradient is right."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from medsegdiff.calibration.scaling import BIASES, TEMPERATURES, Scaling, fit_scaling
from medsegdiff.core.types import ScalingMethod

METHODS: tuple[ScalingMethod, ...] = ("temperature", "vector")


def drawn(true: Scaling, voxels: int = 60_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities p (K, V), and labels, one-hot, that come true as often as ``true(p)`` says."""
    rng, classes = np.random.default_rng(0), len(true.bias)
    p = softmax(rng.normal(0.0, 2.0, (classes, voxels)), axis=0)
    label = (true(p).cumsum(axis=0) < rng.random(voxels)).sum(axis=0).clip(0, classes - 1)
    return p, np.eye(classes)[:, label], np.ones(voxels)


def same(classes: int, temperature: float) -> Scaling:
    return Scaling((temperature,) * classes, (0.0,) * classes)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_a_known_temperature_is_found(
    method: ScalingMethod, temperature: float, classes: int
) -> None:
    found = fit_scaling(*drawn(same(classes, temperature)), method)
    np.testing.assert_allclose(found.temperature, temperature, rtol=0.06)
    np.testing.assert_allclose(found.bias, 0.0, atol=0.06)


def test_a_known_temperature_and_bias_of_each_class_are_found() -> None:
    true = Scaling((1.5, 0.8, 1.2), (0.0, 0.5, -0.4))
    found = fit_scaling(*drawn(true), "vector")
    np.testing.assert_allclose(found.temperature, true.temperature, rtol=0.06)
    np.testing.assert_allclose(found.bias, true.bias, atol=0.06)


@pytest.mark.parametrize("method", METHODS)
def test_the_optimum_is_that_of_a_search_without_gradient(method: ScalingMethod) -> None:
    p, label, _ = drawn(Scaling((1.4, 0.9, 1.1), (0.0, 0.2, -0.2)), 3000)
    weight = np.random.default_rng(1).exponential(size=3000)
    share, log_p = 0.7 * label + 0.3 * p, np.log(p)  # of several raters

    def loss(x: np.ndarray) -> float:
        t = np.full(3, x[0]) if method == "temperature" else x[:3]
        b = np.zeros(3) if method == "temperature" else np.append(0.0, x[3:])
        z = log_softmax(log_p / t[:, None] + b[:, None], axis=0)
        return float(-np.average((share * z).sum(axis=0), weights=weight))

    start = np.ones(1) if method == "temperature" else np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    found = fit_scaling(np.exp(log_p), share, weight, method)
    x = np.array(
        found.temperature[:1] if method == "temperature" else [*found.temperature, *found.bias[1:]]
    )
    best = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-10})
    assert loss(x) <= best.fun + 1e-5


def test_probabilities_sum_to_one_and_zeros_stay() -> None:
    p = np.array([[1.0, 0.7, 0.0], [0.0, 0.3, 1.0]], np.float32)
    scaled = Scaling((2.0, 1.5), (0.0, 1.0))(p)
    np.testing.assert_allclose(scaled.sum(axis=0), 1.0, rtol=1e-6)
    assert scaled.dtype == np.float32 and scaled[1, 0] == scaled[0, 2] == 0.0
    np.testing.assert_allclose(
        scaled[:, 1], softmax(np.log(p[:, 1]) / [2.0, 1.5] + [0, 1]), rtol=1e-5
    )
    volume = p.reshape(2, 3, 1)
    np.testing.assert_array_equal(Scaling((2.0, 1.5), (0.0, 1.0))(volume)[..., 0], scaled)


def test_the_temperature_keeps_to_its_limits() -> None:
    p, label, weight = drawn(same(3, 1.0), 2000)
    wrong = np.roll(label, 1, axis=0)  # nothing that p says is true
    found = fit_scaling(p, wrong, weight, "temperature")
    assert TEMPERATURES[0] <= found.temperature[0] <= TEMPERATURES[1] + 1e-9


def test_a_class_that_no_reference_has_keeps_finite_numbers() -> None:
    p, label, weight = drawn(same(3, 1.0), 2000)
    share = np.stack([label[0] + label[2], label[1], np.zeros(p.shape[1])])
    found = fit_scaling(p, share, weight, "vector")
    assert found.bias[2] >= BIASES[0] and found(p)[2].mean() < 0.01
