"""Samplers against oracles: a denoiser that knows the answer, or the exact posterior."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from medsegdiff.diffusion.affine import AffineProcess
from medsegdiff.diffusion.categorical import CategoricalProcess, jump
from medsegdiff.diffusion.flow import RectifiedFlow
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.grid import Level, TimeGrid
from medsegdiff.diffusion.prediction import mask_to_probability, x_0_from_eps
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.samplers import SAMPLERS, ddim, ddpm, make_sampler, suitable_samplers
from medsegdiff.diffusion.schedule import SCHEDULES

DETERMINISTIC = ["ddim", "dpm_solver_2m", "euler", "heun", "plms"]
CONTINUOUS: dict[str, Callable[..., Tensor]] = {
    **{name: SAMPLERS[name] for name in ("ddpm", *DETERMINISTIC)},
    "ddim-eta": partial(ddim, eta=1.0),
}
STEPS = [1, 2, 5, 10, 50]
SHAPES = [(2, 3, 6, 5), (2, 3, 4, 5, 3)]

AFFINE: dict[str, AffineProcess] = {
    **{name: GaussianProcess(name) for name in SCHEDULES},  # type: ignore[arg-type]
    "flow": RectifiedFlow(),
    "narrow-flow": RectifiedFlow(base_scale=0.3),
}
CATEGORICAL = {name: CategoricalProcess(name) for name in SCHEDULES}  # type: ignore[arg-type]
CASES: dict[str, tuple[Callable[..., Tensor], Process]] = {
    **{f"{n}-{p}": (CONTINUOUS[n], AFFINE[p]) for n in CONTINUOUS for p in AFFINE},
    **{f"ancestral-{p}": (SAMPLERS["ancestral"], CATEGORICAL[p]) for p in CATEGORICAL},
}


class Normal:
    """Standard normal noise from its own generator; counts its calls."""

    def __init__(self, seed: int = 0) -> None:
        self.generator, self.calls = torch.Generator().manual_seed(seed), 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        return torch.randn(x.shape, generator=self.generator, dtype=x.dtype)


def one_hot_mask(shape: tuple[int, ...]) -> Tensor:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return torch.full(shape, -1.0).scatter_(1, logits.argmax(1, keepdim=True), 1.0)


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("sampler", "process"), CASES.values(), ids=CASES)
def test_a_denoiser_that_knows_x_0_gives_x_0(
    sampler: Callable[..., Tensor], process: Process, steps: int, shape: tuple[int, ...]
) -> None:
    """And each state that it is shown is at the level of its time step."""
    truth, noise, seen = one_hot_mask(shape), Normal(), []

    def denoise(x_t: Tensor, t: int) -> Tensor:
        seen.append(t)
        return truth

    grid = process.grid(steps)
    result = sampler(denoise, process.start(noise(truth)), grid, noise)
    torch.testing.assert_close(result, truth, rtol=0, atol=1e-4)
    twice = sampler is SAMPLERS["heun"]
    assert seen == sorted([*grid.timesteps, *(grid.timesteps[1:] if twice else ())], reverse=True)


@pytest.mark.parametrize(("sampler", "process"), CASES.values(), ids=CASES)
def test_the_result_is_the_very_estimate_of_the_last_call(
    sampler: Callable[..., Tensor], process: Process
) -> None:
    noise, estimates = Normal(), []

    def denoise(x_t: Tensor, t: int) -> Tensor:
        estimates.append(torch.tanh(noise(x_t)))
        return estimates[-1]

    x_T = process.start(noise(torch.zeros(2, 3, 6, 5)))
    assert sampler(denoise, x_T, process.grid(4), noise) is estimates[-1]


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("process", AFFINE.values(), ids=AFFINE)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_denoiser_that_knows_the_noise_gives_x_0(
    name: str, process: AffineProcess, steps: int, shape: tuple[int, ...]
) -> None:
    """Each state is a x_0 + s eps with the true eps; at pure noise, where that says nothing of
    x_0, the denoiser knows the velocity."""
    generator = torch.Generator().manual_seed(2)
    truth = one_hot_mask(shape).double()
    eps = torch.randn(truth.shape, generator=generator, dtype=torch.float64)

    def denoise(x_t: Tensor, t: int) -> Tensor:
        step = torch.tensor([t])
        a, s = process.coefficients(step, x_t)
        if float(a) > 0.0:
            return x_0_from_eps(x_t, eps, a, s)
        return process.x_0_from_velocity(x_t, process.velocity(truth, eps, a, s), a, s)

    for start in (1.0, 0.7):
        grid = process.grid(steps, start)
        first = process.add_noise(truth, eps, torch.tensor(grid.timesteps[:1]))
        result = SAMPLERS[name](denoise, first, grid, Normal())
        torch.testing.assert_close(result, truth, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_samplers_draw_no_noise(name: str) -> None:
    noise = Normal()
    x_T, grid = torch.randn(1, 2, 8, 8), GaussianProcess().grid(5)
    results = [SAMPLERS[name](lambda x, t: x.tanh(), x_T, grid, noise) for _ in range(2)]
    assert torch.equal(*results) and noise.calls == 0


@pytest.mark.parametrize("process", AFFINE.values(), ids=AFFINE)
@pytest.mark.parametrize("steps", [2, 5, 10, 50])
def test_ddim_at_eta_1_takes_ddpms_steps(steps: int, process: AffineProcess) -> None:
    """Same noise, same denoiser: DDIM at eta 1 and DDPM are one process (Song et al., sec. 4.1)."""
    x_T, grid = torch.randn(1, 2, 8, 8, dtype=torch.float64), process.grid(steps)
    a = ddpm(lambda x, t: x.tanh(), x_T, grid, Normal(3))
    b = ddim(lambda x, t: x.tanh(), x_T, grid, Normal(3), eta=1.0)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("process", AFFINE.values(), ids=AFFINE)
@pytest.mark.parametrize("steps", [2, 5, 10, 50])
def test_euler_is_ddim_without_noise(steps: int, process: AffineProcess) -> None:
    x_T, grid = torch.randn(1, 2, 8, 8, dtype=torch.float64), process.grid(steps)
    a, b = (SAMPLERS[n](lambda x, t: x.tanh(), x_T, grid, Normal()) for n in ("euler", "ddim"))
    torch.testing.assert_close(a, b)


def test_euler_follows_the_velocity_of_the_linear_flow() -> None:
    """x + (tau' - tau) v with v = eps - x_0, written out."""
    process = RectifiedFlow(100)
    x = x_T = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    for tau, tau_after in ((1.0, 0.75), (0.75, 0.5), (0.5, 0.25)):
        v = (x - x.tanh()) / tau
        x = x + (tau_after - tau) * v
    result = SAMPLERS["euler"](lambda x, t: x.tanh(), x_T, process.grid(4), Normal())
    torch.testing.assert_close(result, x.tanh())


PATHS: dict[str, Callable[[float], Level]] = {
    "gaussian": lambda u: Level(math.cos(u * math.pi / 2), math.sin(u * math.pi / 2)),
    "flow": lambda u: Level(1 - u, u),
}


def error_on_a_gaussian(name: str, path: Callable[[float], Level], steps: int) -> float:
    """Relative error at u = 0.1 from u = 0.9, where x_0 ~ N(0, c^2) and all is known.

    E[x_0 | x_t] = a c^2 x_t / (a^2 c^2 + s^2), and the flow scales x_t like its deviation.
    """
    c = 0.6
    levels = tuple(path(0.9 - 0.8 * i / steps) for i in range(steps + 1))
    grid = TimeGrid(tuple(range(steps, -1, -1)), levels)

    def denoise(x_t: Tensor, t: int) -> Tensor:
        a, s = levels[steps - t]
        return a * c**2 / (a**2 * c**2 + s**2) * x_t

    deviation = [math.sqrt(a**2 * c**2 + s**2) for a, s in levels]
    x_T = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    exact = denoise(x_T * deviation[-1] / deviation[0], 0)
    return abs(float(SAMPLERS[name](denoise, x_T, grid, Normal()) / exact) - 1)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize(
    ("name", "order"),
    [("ddim", 1), ("euler", 1), ("heun", 2), ("plms", 2), ("dpm_solver_2m", 2)],
)
def test_order_of_convergence(name: str, order: int, path: Callable[[float], Level]) -> None:
    """Half the step has at most 2^-order of the error; a first-order method has no less."""
    coarse, fine = (error_on_a_gaussian(name, path, steps) for steps in (100, 200))
    measured = math.log2(coarse / fine)
    assert measured > order - 0.1
    assert order > 1 or measured < 1.2


@pytest.mark.parametrize("process", [AFFINE["cosine"], AFFINE["linear"], AFFINE["flow"]])
@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_exact_posterior_of_a_coin_gives_its_probability(
    name: str, steps: int, process: AffineProcess
) -> None:
    """Pixels are +1 with probability P: sampled with the exact posterior mean, they must be again.

    A sampler whose state is at another noise level than the model is told fails here.
    """
    p = 0.731

    def posterior_mean(x_t: Tensor, t: int) -> Tensor:
        a, s = float(process.a[t]), float(process.s[t])
        return torch.tanh((math.log(p / (1 - p)) + 2 * a * x_t / s**2) / 2)

    noise = Normal(4)
    x_T = noise(torch.zeros(1, 1, 200, 200, dtype=torch.float64))
    x_0 = CONTINUOUS[name](posterior_mean, x_T, process.grid(steps), noise)
    # Few steps have an error of their own; a wrong grid would give about 0.5.
    assert float((x_0 > 0).double().mean()) == pytest.approx(p, abs=0.02 if steps == 50 else 0.05)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("side", [(200, 200), (34, 34, 34)], ids=["2d", "3d"])
def test_ancestral_sampling_with_the_exact_posterior_has_the_right_frequencies(
    side: tuple[int, ...], steps: int
) -> None:
    """At each visited step, and of the result; exact for any grid, so few steps will do."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).view(1, 3, *[1] * len(side))
    process, noise, visited = CategoricalProcess("cosine", 100), Normal(5), []

    def posterior(x_t: Tensor, t: int) -> Tensor:
        a = float(process.alphas_cumprod[t])
        visited.append(((x_t == 1).double(), a))
        likelihood = jump((x_t + 1) / 2, a)
        return 2 * p * likelihood / (p * likelihood).sum(1, keepdim=True) - 1

    x_T = process.start(noise(torch.zeros(1, 3, *side, dtype=torch.float64)))
    x_0 = SAMPLERS["ancestral"](posterior, x_T, process.grid(steps), noise)
    for state, a in [*visited, (mask_to_probability(x_0), 1.0)]:
        frequencies = state.flatten(2).mean(2).flatten()
        torch.testing.assert_close(frequencies, jump(p, a).flatten(), rtol=0, atol=0.012)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_samplers_of_other_states_are_refused(name: str) -> None:
    process = GaussianProcess() if name == "ancestral" else CategoricalProcess()
    x_T = torch.randn(1, 2, 4, 4)
    with pytest.raises(ValueError, match=f"{name}.*Choose one of"):
        SAMPLERS[name](lambda x, t: x, x_T, process.grid(2), Normal())
    assert name not in suitable_samplers(process.grid(2).states)


def test_unknown_samplers_and_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"ddim.*ddpm"):
        make_sampler("ddip")
    with pytest.raises(ValueError, match=r"\['eta'\].*\['etta'\]"):
        make_sampler("ddim", etta=1.0)
    with pytest.raises(ValueError, match="plms"):
        make_sampler("plms", eta=1.0)
