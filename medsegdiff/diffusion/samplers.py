"""Samplers: from noise back to masks, along one explicit time grid.

A sampler is a function ``(denoise, x_T, grid, noise) -> x_0``, where

- ``denoise(x_t, t)`` gives the clean mask in [-1, 1] that the model sees in ``x_t`` at step t;
- ``x_T`` is the state at the grid's first level, (B, K, *spatial);
- ``grid`` lists the time steps to visit, and the levels (a, s) there: x_t = a x_0 + s eps;
- ``noise(x)`` gives fresh standard normal noise like ``x`` (only stochastic samplers call it).

The last call's mask is the result, as it came: a model may bring more than the mask along with it.
``heun`` calls ``denoise`` 2 ``len(grid)`` - 1 times, each of
the others ``len(grid)`` times. A sampler whose states are not those of the grid's process raises a
``ValueError``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial, wraps

from torch import Tensor

from medsegdiff.diffusion.affine import posterior_coefficients
from medsegdiff.diffusion.categorical import posterior_probability, sample_one_hot
from medsegdiff.diffusion.grid import Level, States, TimeGrid
from medsegdiff.diffusion.prediction import eps_from_x_0

Denoise = Callable[[Tensor, int], Tensor]
Noise = Callable[[Tensor], Tensor]
Sampler = Callable[[Denoise, Tensor, TimeGrid, Noise], Tensor]

SAMPLERS: dict[str, Callable[..., Tensor]] = {}
STATES: dict[str, States] = {}
"""Kind of the states of each sampler."""


def sampler_of(states: States) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """A decorator that registers a sampler in ``SAMPLERS`` and refuses grids of other states."""

    def register(sample: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @wraps(sample)
        def checked(
            denoise: Denoise, x_T: Tensor, grid: TimeGrid, noise: Noise, **options: float
        ) -> Tensor:
            if grid.states != states:
                raise ValueError(
                    f"sampler {sample.__name__!r} needs a process of {states} states; this one's "
                    f"are {grid.states}. Choose one of {suitable_samplers(grid.states)}."
                )
            return sample(denoise, x_T, grid, noise, **options)

        SAMPLERS[sample.__name__], STATES[sample.__name__] = checked, states
        return checked

    return register


def suitable_samplers(states: States) -> list[str]:
    """Names of the samplers for a process with such states.

    Example:
        >>> suitable_samplers("discrete")
        ['ancestral']
    """
    return sorted(name for name in SAMPLERS if STATES[name] == states)


def make_sampler(name: str, **options: float) -> Sampler:
    """The sampler of that name with its options bound.

    Raises:
        ValueError: for an unknown name or option.

    Example:
        >>> make_sampler("ddim", eta=1.0).keywords
        {'eta': 1.0}
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler must be one of {sorted(SAMPLERS)}. Got {name!r}.")
    known = list(inspect.signature(SAMPLERS[name]).parameters)[4:]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"sampler {name!r} takes the options {known}. Got {unknown}.")
    return partial(SAMPLERS[name], **options)


def move(x_t: Tensor, x_0: Tensor, now: Level, after: Level) -> Tensor:
    """The state (B, K, *spatial) with the same noise at the next level (Song et al. 2021, eq. 12).

    The equation is taken with sigma = 0.

    after.a x_0 + after.s eps, with eps = (x_t - now.a x_0) / now.s written out: two passes.
    """
    kept = after.s / now.s
    return (kept * x_t).add_(x_0, alpha=after.a - kept * now.a)


@sampler_of("continuous")
def ddpm(denoise: Denoise, x_T: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, alg. 2), respaced exactly: posteriors of the grid."""
    x_t = x_0 = x_T
    for t, now, after in grid:
        x_0 = denoise(x_t, t)
        if after.s > 0.0:
            of_x_0, of_x_t, variance = posterior_coefficients(now, after)
            x_t = of_x_0 * x_0 + of_x_t * x_t + math.sqrt(variance) * noise(x_t)
    return x_0


@sampler_of("continuous")
def ddim(
    denoise: Denoise, x_T: Tensor, grid: TimeGrid, noise: Noise, *, eta: float = 0.0
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12); ``eta`` 0 is deterministic, 1 has DDPM's variance."""
    x_t = x_0 = x_T
    for t, now, after in grid:
        x_0 = denoise(x_t, t)
        if after.s > 0.0:
            sigma = eta * math.sqrt(posterior_coefficients(now, after)[2])  # eq. 16
            kept = math.sqrt(max(after.s**2 - sigma**2, 0.0))
            x_t = move(x_t, x_0, now, Level(after.a, kept))
            if sigma > 0.0:
                x_t.add_(noise(x_t), alpha=sigma)
    return x_0


@sampler_of("continuous")
def plms(denoise: Denoise, x_T: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """PLMS (Liu et al. 2022, eq. 12): Adams-Bashforth on eps, of rising order at the start."""
    x_t = x_0 = x_T
    past: list[Tensor] = []
    for t, now, after in grid:
        x_0 = denoise(x_t, t)
        past = [eps_from_x_0(x_t, x_0, now.a, now.s), *past[:3]]
        if after.s > 0.0:
            weights = ADAMS_BASHFORTH[len(past) - 1]
            eps = sum((w * e for w, e in zip(weights, past, strict=True)), start=0.0 * x_t)
            # The mask that goes with that eps; at the first step, where a may be 0, x_0 itself.
            mask = x_0 if len(past) == 1 else x_0 + now.s / now.a * (past[0] - eps)
            x_t = after.a * mask + after.s * eps
    return x_0


ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@sampler_of("continuous")
def dpm_solver_2m(denoise: Denoise, x_T: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, alg. 2): x_0 extrapolated in the logarithm of a / s."""
    x_t = x_0 = x_T
    before: tuple[Tensor, Level] | None = None
    for t, now, after in grid:
        x_0 = mask = denoise(x_t, t)
        if after.s > 0.0:
            if before is not None and before[1].a > 0.0:  # else the last step had infinite length
                h = math.log(after.a / after.s) - math.log(now.a / now.s)
                h_before = math.log(now.a / now.s) - math.log(before[1].a / before[1].s)
                mask = x_0 + h / (2.0 * h_before) * (x_0 - before[0])
            before = x_0, now
            x_t = move(x_t, mask, now, after)
    return x_0


@sampler_of("continuous")
def euler(denoise: Denoise, x_T: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Euler's method on dx_t = x_0 da + eps ds, the flow through all levels; equals DDIM."""
    x_t = x_0 = x_T
    for t, now, after in grid:
        x_0 = denoise(x_t, t)
        if after.s > 0.0:
            eps = eps_from_x_0(x_t, x_0, now.a, now.s)
            x_t = x_t + (after.a - now.a) * x_0 + (after.s - now.s) * eps
    return x_0


@sampler_of("continuous")
def heun(denoise: Denoise, x_T: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Heun's method (Karras et al. 2022, alg. 1) on the same flow: the mean of both ends."""
    x_t = x_0 = x_T
    for (t, now, after), t_after in zip(grid, (*grid.timesteps[1:], -1), strict=True):
        x_0 = denoise(x_t, t)
        if after.s > 0.0:
            ahead = move(x_t, x_0, now, after)
            x_0_ahead = denoise(ahead, t_after)
            eps = eps_from_x_0(x_t, x_0, now.a, now.s)
            eps_ahead = eps_from_x_0(ahead, x_0_ahead, after.a, after.s)
            x_t = x_t + (after.a - now.a) / 2.0 * (x_0 + x_0_ahead)
            x_t = x_t + (after.s - now.s) / 2.0 * (eps + eps_ahead)
    return x_0


@sampler_of("discrete")
def ancestral(denoise: Denoise, x_T: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Classes from the exact posterior of the grid's steps (Austin et al. 2021, eq. 4)."""
    x_t = x_0 = x_T
    for t, now, after in grid:
        x_0 = denoise(x_t, t)
        if after.s > 0.0:
            probability = posterior_probability(x_t, x_0, now, after)
            x_t = sample_one_hot(probability, noise(x_t))
    return x_0
