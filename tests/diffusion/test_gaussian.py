"""The process against its closed form."""

import pytest
import torch

from medsegdiff.core.types import Target
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.schedule import make_schedule


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


def test_the_levels_of_another_model_are_taken_as_they_are() -> None:
    levels = torch.linspace(0.99, 0.01, 50)
    process = GaussianProcess(alphas_cumprod=levels)
    assert process.n_timesteps == 50 and process.alphas_cumprod.dtype == torch.float64
    x_0, eps = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    x_t = process.add_noise(x_0, eps, torch.tensor([49]))
    torch.testing.assert_close(x_t, torch.full_like(x_t, 0.1))


def test_the_process_has_the_schedule_that_was_asked_for() -> None:
    process = GaussianProcess("sigmoid", 50, input_scale=0.5, zero_snr=False)
    expected = make_schedule("sigmoid", 50, input_scale=0.5, zero_snr=False)
    assert torch.equal(process.alphas_cumprod, expected) and process.n_timesteps == 50
    torch.testing.assert_close(process.a.square() + process.s.square(), torch.ones(50).double())
    torch.testing.assert_close(process.a.square(), expected)
    assert torch.equal(GaussianProcess().alphas_cumprod, make_schedule("cosine", 1000))
