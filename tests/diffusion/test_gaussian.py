"""The process against its closed form and against Bayes' rule."""

import pytest
import torch

from medsegdiff.diffusion.gaussian import (
    GaussianProcess,
    low_discrepancy_timesteps,
    posterior_mean_coefficients,
)
from medsegdiff.types import Target


@pytest.mark.parametrize("shape", [(20000, 1, 1, 1), (20000, 1, 1, 1, 1)], ids=["2d", "3d"])
@pytest.mark.parametrize("t", [0, 400, 999])
def test_moments_of_noising(shape: tuple[int, ...], t: int) -> None:
    process = GaussianProcess("cosine", 1000)
    x_0 = torch.full(shape, -1.0)
    eps = torch.randn(shape, generator=torch.Generator().manual_seed(t))
    x_t = process.add_noise(x_0, eps, torch.full((shape[0],), t))
    gamma = float(process.alphas_cumprod[t])
    assert float(x_t.mean()) == pytest.approx(-(gamma**0.5), abs=0.03)
    assert float(x_t.std()) == pytest.approx((1 - gamma) ** 0.5, abs=0.03)


def test_noising_in_steps_has_the_marginal_of_one_jump() -> None:
    """x_s noised on to t by the step's own alpha has x_t's mean and variance."""
    gamma = GaussianProcess("linear", 1000, zero_snr=False).alphas_cumprod
    for s, t in ((0, 10), (100, 700), (5, 999)):
        alpha = gamma[t] / gamma[s]
        assert float(alpha * gamma[s]) == pytest.approx(float(gamma[t]))
        assert float(alpha * (1 - gamma[s]) + 1 - alpha) == pytest.approx(float(1 - gamma[t]))


@pytest.mark.parametrize(("s", "t"), [(0, 1), (100, 500), (3, 998)])
def test_posterior_is_bayes_rule(s: int, t: int) -> None:
    """q(x_s | x_t, x_0) from the product of two Gaussians in x_s, computed the long way."""
    gamma = GaussianProcess("linear", 1000, zero_snr=False).alphas_cumprod
    gamma_s, gamma_t = float(gamma[s]), float(gamma[t])
    alpha = gamma_t / gamma_s
    x_0, x_t = 0.7, -0.4
    prior_mean, prior_var = gamma_s**0.5 * x_0, 1 - gamma_s
    likelihood_mean, likelihood_var = x_t / alpha**0.5, (1 - alpha) / alpha
    precision = 1 / prior_var + 1 / likelihood_var
    mean = (prior_mean / prior_var + likelihood_mean / likelihood_var) / precision
    of_x_0, of_x_t, variance = posterior_mean_coefficients(gamma_t, gamma_s)
    assert of_x_0 * x_0 + of_x_t * x_t == pytest.approx(mean)
    assert variance == pytest.approx(1 / precision)


def test_half_precision_calls_leave_the_schedule_alone() -> None:
    process = GaussianProcess()
    before = process.alphas_cumprod.clone()
    x = torch.randn(1, 2, 4, 4, dtype=torch.bfloat16)
    assert process.add_noise(x, x, torch.tensor([3])).dtype == torch.bfloat16
    assert torch.equal(process.half().alphas_cumprod, before)


@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
def test_targets(target: Target) -> None:
    process = GaussianProcess()
    x_0, eps, t = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor([0, 999])
    a, s = process.coefficients(t, x_0)
    expected = {"x_0": x_0, "eps": eps, "v": a * eps - s * x_0}[target]
    torch.testing.assert_close(process.target(x_0, eps, t, target), expected)


def test_low_discrepancy_times_cover_the_range_evenly() -> None:
    for seed in range(5):
        t = low_discrepancy_timesteps(8, 1000, torch.Generator().manual_seed(seed))
        assert sorted((t // 125).tolist()) == list(range(8))
