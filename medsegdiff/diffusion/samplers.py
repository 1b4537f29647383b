"""Samplers: from noise back to masks, on one explicit time grid that they alone define.

A sampler is a function ``(denoise, x_T, grid, noise) -> x_0``, where

- ``denoise(x_t, t)`` gives the clean mask in [-1, 1] that the model sees in ``x_t`` at step t;
- ``x_T`` is pure noise, (B, K, *spatial);
- ``grid`` lists the time steps to visit, and the schedule's values there;
- ``noise(x)`` gives fresh standard normal noise like ``x`` (only stochastic samplers call it).

Each calls ``denoise`` exactly ``len(grid)`` times; the last call's mask is the result. The grid's
numbers are Python floats, so no step waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from medsegdiff.diffusion.gaussian import posterior_mean_coefficients
from medsegdiff.diffusion.prediction import eps_from_x_0

Denoise = Callable[[Tensor, int], Tensor]
Noise = Callable[[Tensor], Tensor]
Sampler = Callable[[Denoise, Tensor, "TimeGrid", Noise], Tensor]


@dataclass(frozen=True)
class TimeGrid:
    """Time steps to visit, falling, with ``alphas_cumprod`` there; the clean mask follows."""

    timesteps: tuple[int, ...]
    alphas_cumprod: tuple[float, ...]

    def __len__(self) -> int:
        """How often the denoiser will be called."""
        return len(self.timesteps)

    def __iter__(self) -> Iterator[tuple[int, float, float]]:
        """(t, alphas_cumprod at t, alphas_cumprod at the next visited step or 1 at the end)."""
        return iter(
            zip(self.timesteps, self.alphas_cumprod, (*self.alphas_cumprod[1:], 1.0), strict=False)
        )


def time_grid(alphas_cumprod: Tensor, steps: int) -> TimeGrid:
    """``steps`` time steps from T - 1 down, evenly spaced, ending above the clean mask.

    Args:
        alphas_cumprod: (T,) the schedule that the model was trained on.
        steps: number of denoiser calls, 1 ... T.

    Raises:
        ValueError: if ``steps`` is outside 1 ... T.

    Example:
        >>> import torch
        >>> time_grid(torch.linspace(0.9, 0.0, 10), 3).timesteps
        (9, 6, 3)
    """
    n_timesteps = len(alphas_cumprod)
    if not 1 <= steps <= n_timesteps:
        raise ValueError(f"steps must be between 1 and {n_timesteps}. Got {steps}.")
    timesteps = tuple(n_timesteps - 1 - (i * n_timesteps) // steps for i in range(steps))
    return TimeGrid(timesteps, tuple(float(alphas_cumprod[t]) for t in timesteps))


def ddpm(denoise: Denoise, x_T: Tensor, grid: TimeGrid, noise: Noise) -> Tensor:
    """Ancestral sampling (Ho et al. 2020, alg. 2), respaced exactly: posteriors of the grid."""
    x_t = x_0 = x_T
    for t, alpha, alpha_prev in grid:
        x_0 = denoise(x_t, t)
        of_x_0, of_x_t, variance = posterior_mean_coefficients(alpha, alpha_prev)
        if alpha_prev < 1.0:
            x_t = of_x_0 * x_0 + of_x_t * x_t + math.sqrt(variance) * noise(x_t)
    return x_0


def ddim(
    denoise: Denoise, x_T: Tensor, grid: TimeGrid, noise: Noise, *, eta: float = 0.0
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12); ``eta`` 0 is deterministic, 1 has DDPM's variance."""
    x_t = x_0 = x_T
    for t, alpha, alpha_prev in grid:
        x_0 = denoise(x_t, t)
        if alpha_prev < 1.0:
            eps = eps_from_x_0(x_t, x_0, math.sqrt(alpha), math.sqrt(1.0 - alpha))
            sigma = eta * math.sqrt(
                (1.0 - alpha_prev) / (1.0 - alpha) * (1.0 - alpha / alpha_prev)
            )  # eq. 16
            direction = math.sqrt(max(1.0 - alpha_prev - sigma**2, 0.0)) * eps
            x_t = math.sqrt(alpha_prev) * x_0 + direction
            if sigma > 0.0:
                x_t = x_t + sigma * noise(x_t)
    return x_0


SAMPLERS: dict[str, Callable[..., Tensor]] = {"ddpm": ddpm, "ddim": ddim}


def make_sampler(name: str, **options: float) -> Sampler:
    """The sampler of that name with its options bound.

    Raises:
        ValueError: for an unknown name.

    Example:
        >>> make_sampler("ddim", eta=1.0).keywords
        {'eta': 1.0}
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler must be one of {sorted(SAMPLERS)}. Got {name!r}.")
    return partial(SAMPLERS[name], **options)
