"""The steps of a sampler as numbers, so that other programs need no sampler of ours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medsegdiff.core.errors import InputError
from medsegdiff.core.sampling_settings import SamplingSettings
from medsegdiff.diffusion.grid import TimeGrid
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.samplers import make_sampler

ONE_STEP = ("ddim", "ddpm", "euler")
"""Samplers whose next state depends on the last one alone."""


@dataclass(frozen=True)
class Step:
    """One step: x_next = of_x_0 * x_0 + of_x_t * x_t + of_noise * noise; 0, 0, 0 at the last.

    Attributes:
        t: Time step that the denoiser is given.
        of_x_0: Factor of the clean mask that the denoiser gives.
        of_x_t: Factor of the state.
        of_noise: Factor of fresh standard normal noise.
    """

    t: int
    of_x_0: float
    of_x_t: float
    of_noise: float


def sampler_steps(settings: SamplingSettings, process: Process) -> list[Step]:
    """The steps of the sampler that the settings name, read from the sampler itself.

    Args:
        settings: Settings of the ensemble.
        process: Process of the network.

    Raises:
        InputError: the next state of the sampler depends on more than the last one, or sampling
            begins at the anchor.
    """
    if settings.sampler not in ONE_STEP or settings.warm_start < 1.0:
        rule = f"sampler {settings.sampler}, warm_start {settings.warm_start:g} cannot be exported"
        remedy = f"Choose one of {', '.join(ONE_STEP)} and warm_start 1, in the bundle"
        raise InputError("export", rule, remedy)
    grid = process.grid(settings.steps, settings.warm_start)
    sampler = make_sampler(settings.sampler, **(settings.sampler_options or {}))
    ends = len(grid) - 1
    return [
        Step(t, *_factors(sampler, grid, i) if i < ends else (0.0, 0.0, 0.0))
        for i, t in enumerate(grid.timesteps)
    ]


def start_factor(process: Process) -> float:
    """Factor of standard normal noise in the state that sampling starts from.

    Raises:
        InputError: the process starts from something else.
    """
    ones = torch.ones(1, 2, 4, 4)
    first = process.start(ones)
    if not torch.allclose(first, first.flatten()[0] * ones):
        rule = "does not start from scaled noise, which is all that can be exported"
        raise InputError("export", f"its process {rule}", "Export a Gaussian bundle")
    return float(first.flatten()[0])


def _factors(sampler: object, grid: TimeGrid, i: int) -> tuple[float, float, float]:
    """Factors of x_0, x_t and noise: the sampler is linear, so each is seen on an axis alone."""
    pair = TimeGrid(grid.timesteps[i : i + 2], grid.levels[i : i + 2], grid.states)
    of_x_0, of_x_t, of_noise = torch.eye(3, dtype=torch.float64)
    seen: list[Tensor] = []

    def denoise(x_t: Tensor, t: int) -> Tensor:
        seen.append(x_t.clone())
        return of_x_0

    sampler(denoise, of_x_t, pair, lambda _: of_noise)  # type: ignore[operator]
    first, second, third = seen[1].tolist()
    return first, second, third
