"""The time grid: which steps a sampler visits, and how much signal and noise is left at each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

States = Literal["continuous", "discrete"]
"""Kind of the states x_t: real numbers, or one-hot classes."""


class Level(NamedTuple):
    """Noise level of a state: factor ``a`` of the clean mask, and factor ``s`` of the noise."""

    a: float
    s: float


CLEAN = Level(1.0, 0.0)


@dataclass(frozen=True)
class TimeGrid:
    """Time steps to visit, falling, with the level at each; the clean mask follows.

    Its numbers are Python's, so that no step of a sampler waits for the device.
    """

    timesteps: tuple[int, ...]
    levels: tuple[Level, ...]
    states: States = "continuous"

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.timesteps)

    def __iter__(self) -> Iterator[tuple[int, Level, Level]]:
        """For each step: t, its level, and the next step's level (at the end, the clean mask's)."""
        return iter(zip(self.timesteps, self.levels, (*self.levels[1:], CLEAN), strict=True))


def time_grid(
    a: Tensor, s: Tensor, steps: int, start: float = 1.0, states: States = "continuous"
) -> TimeGrid:
    """A grid of ``steps`` time steps, falling, evenly spaced, that ends above the clean mask.

    Args:
        a: Signal level (T,) of each time step of a process, falling.
        s: Noise level (T,) of each time step.
        steps: Number of steps, 1 ... ``start`` T.
        start: Fraction of the T time steps to begin at, in (0, 1]; 1 begins at T - 1.
        states: Kind of the process's states.

    Raises:
        ValueError: if ``start`` or ``steps`` is out of its range.

    Example:
        >>> import torch
        >>> tau = torch.arange(1, 11) / 10
        >>> time_grid(1 - tau, tau, 3).timesteps
        (9, 6, 3)
        >>> time_grid(1 - tau, tau, 3, start=0.6).timesteps
        (5, 3, 1)
    """
    if not 0.0 < start <= 1.0:
        raise ValueError(f"start must be in (0, 1]. Got {start}.")
    top = round(start * len(a))
    if not 1 <= steps <= top:
        raise ValueError(
            f"steps must be between 1 and {top}, the time steps of the process"
            f"{'' if start == 1.0 else f' below start {start}'}. Got {steps}."
        )
    timesteps = tuple(top - 1 - (i * top) // steps for i in range(steps))
    return grid_at(a, s, timesteps, states)


def grid_at(
    a: Tensor, s: Tensor, timesteps: Sequence[int], states: States = "continuous"
) -> TimeGrid:
    """The grid of chosen time steps, falling; other arguments as for ``time_grid``.

    Raises:
        ValueError: if there are none, or they do not fall.
    """
    falling = all(t > after for t, after in itertools.pairwise(timesteps))
    if not timesteps or not falling:
        raise ValueError(f"timesteps must be one at least, and fall. Got {list(timesteps)}.")
    levels = tuple(Level(float(a[t]), float(s[t])) for t in timesteps)
    return TimeGrid(tuple(timesteps), levels, states)
