"""Samplers against oracles: a denoiser that knows the answer, or the exact posterior."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.prediction import x_0_from_eps
from medsegdiff.diffusion.samplers import Sampler, TimeGrid, ddim, ddpm, make_sampler, time_grid
from medsegdiff.diffusion.schedule import SCHEDULES, make_schedule

SAMPLERS: dict[str, Sampler] = {"ddpm": ddpm, "ddim": ddim, "ddim-eta": partial(ddim, eta=1.0)}
STEPS = [1, 2, 5, 10, 50]


class Normal:
    """Standard normal noise from its own generator; counts its calls."""

    def __init__(self, seed: int = 0) -> None:
        self.generator, self.calls = torch.Generator().manual_seed(seed), 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


def grid_of(name: str, steps: int, zero_snr: bool = True) -> TimeGrid:
    return time_grid(make_schedule(name, 1000, zero_snr=zero_snr), steps)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [*STEPS, 1000])
def test_the_grid_falls_from_the_last_step_and_is_evenly_spaced(steps: int) -> None:
    grid = grid_of("cosine", steps)
    assert len(grid) == steps and grid.timesteps[0] == 999
    gaps = [a - b for a, b in zip(grid.timesteps, grid.timesteps[1:], strict=False)]
    assert not gaps or (0 <= max(gaps) - min(gaps) <= 1 and min(grid.timesteps) >= 0)
    assert [after for _, _, after in grid][-1] == 1.0


@pytest.mark.parametrize("steps", [0, 1001])
def test_a_grid_of_too_many_or_no_steps_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 1000"):
        grid_of("cosine", steps)


@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (2, 3, 4, 5, 3)], ids=["2d", "3d"])
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_a_denoiser_that_knows_x_0_gives_x_0(
    sampler: Sampler, steps: int, schedule: str, shape: tuple[int, ...]
) -> None:
    truth = torch.randn(shape, generator=torch.Generator().manual_seed(1)).sign()
    noise = Normal()
    seen: list[int] = []

    def denoise(x_t: Tensor, t: int) -> Tensor:
        seen.append(t)
        return truth

    grid = grid_of(schedule, steps)
    result = sampler(denoise, noise(truth), grid, noise)
    torch.testing.assert_close(result, truth, rtol=0, atol=1e-4)
    assert tuple(seen) == grid.timesteps


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("steps", STEPS)
def test_ddim_keeps_the_noise_that_a_denoiser_knows(steps: int, schedule: str) -> None:
    """With the true eps, each state lies on the straight line from x_0 to eps: x_0 comes out."""
    generator = torch.Generator().manual_seed(2)
    truth = torch.randn(2, 3, 6, 5, generator=generator, dtype=torch.float64).sign()
    eps = torch.randn(truth.shape, generator=generator, dtype=torch.float64)
    gamma = make_schedule(schedule, 1000, zero_snr=False)  # type: ignore[arg-type]

    def denoise(x_t: Tensor, t: int) -> Tensor:
        return x_0_from_eps(x_t, eps, float(gamma[t]) ** 0.5, (1 - float(gamma[t])) ** 0.5)

    x_T = float(gamma[-1]) ** 0.5 * truth + (1 - float(gamma[-1])) ** 0.5 * eps
    result = ddim(denoise, x_T, time_grid(gamma, steps), Normal())
    torch.testing.assert_close(result, truth, rtol=0, atol=1e-4)


def test_ddim_is_deterministic_and_draws_no_noise_at_eta_0() -> None:
    noise = Normal()
    x_T = noise(torch.zeros(1, 2, 8, 8))
    noise.calls = 0
    results = [ddim(lambda x, t: x.tanh(), x_T, grid_of("cosine", 5), noise) for _ in range(2)]
    assert torch.equal(*results) and noise.calls == 0


@pytest.mark.parametrize("steps", [2, 5, 10, 50])
def test_ddim_at_eta_1_takes_ddpms_steps(steps: int) -> None:
    """Same noise, same denoiser: DDIM at eta 1 and DDPM are one process (Song et al., sec. 4.1)."""
    x_T = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    grid = grid_of("linear", steps, zero_snr=False)
    a = ddpm(lambda x, t: x.tanh(), x_T, grid, Normal(3))
    b = ddim(lambda x, t: x.tanh(), x_T, grid, Normal(3), eta=1.0)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("name", ["ddpm", "ddim", "ddim-eta"])
def test_the_exact_posterior_of_a_coin_gives_its_probability(
    name: str, steps: int, schedule: str
) -> None:
    """Pixels are +1 with probability P: sampled with the exact posterior mean, they must be again.

    A sampler whose state is at another noise level than the model is told fails here.
    """
    p = 0.731
    gamma = make_schedule(schedule, 1000)  # type: ignore[arg-type]

    def posterior_mean(x_t: Tensor, t: int) -> Tensor:
        g = float(gamma[t])
        log_odds = math.log(p / (1 - p)) + 2 * math.sqrt(g) * x_t / (1 - g)
        return torch.tanh(log_odds / 2)

    noise = Normal(4)
    x_T = noise(torch.zeros(1, 1, 200, 200, dtype=torch.float64))
    x_0 = SAMPLERS[name](posterior_mean, x_T, time_grid(gamma, steps), noise)
    # Few steps have an error of their own; a wrong grid would give about 0.5.
    assert float((x_0 > 0).double().mean()) == pytest.approx(p, abs=0.02 if steps == 50 else 0.05)


def test_gaussian_process_and_grid_agree() -> None:
    process = GaussianProcess("cosine", 100)
    grid = time_grid(process.alphas_cumprod, 4)
    assert grid.timesteps == (99, 74, 49, 24)
    assert grid.alphas_cumprod == tuple(float(process.alphas_cumprod[t]) for t in grid.timesteps)


def test_unknown_samplers_are_named() -> None:
    with pytest.raises(ValueError, match=r"ddim.*ddpm"):
        make_sampler("ddip")
