"""The interface of a process: all that the model, training and samplers know of one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from medsegdiff.core.types import Target
from medsegdiff.diffusion.grid import TimeGrid


class Process(Protocol):
    """A process that noises masks and interprets a network's output; time steps are 0 ... T - 1.

    Masks and states are (B, K, *spatial), masks in [-1, 1]; ``eps`` is standard normal noise, the
    only randomness of every process; ``t`` is (B,) or (1,), integer.
    """

    n_timesteps: int
    targets: tuple[Target, ...]
    """Targets that a network may predict."""

    def add_noise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Sample of q(x_t | x_0)."""
        ...

    def start(self, eps: Tensor) -> Tensor:
        """The state x_T, which does not depend on x_0."""
        ...

    def network_input(self, x_t: Tensor, t: Tensor, anchor: Tensor) -> Tensor:
        """The network's input, made of x_t and the logits ``anchor`` of the images' anchors."""
        ...

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor, target: Target) -> Tensor:
        """The output that a network is trained on for ``target``; x_0 is a mask in [-1, 1]."""
        ...

    def x_0_from_output(self, output: Tensor, x_t: Tensor, t: Tensor, target: Target) -> Tensor:
        """Clean mask in [-1, 1] from a network's output, which is logits for ``x_0``."""
        ...

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio (B,) at ``t``."""
        ...

    def gain(self, t: Tensor, target: Target) -> Tensor:
        """Squared error (B,) of the target for a squared error 1 of x_0."""
        ...

    def grid(self, steps: int, start: float = 1.0) -> TimeGrid:
        """A grid of ``steps`` time steps for a sampler, from the fraction ``start`` of T down.

        Raises:
            ValueError: if ``steps`` or ``start`` is out of its range.
        """
        ...


def low_discrepancy_timesteps(
    n: int, n_timesteps: int, generator: torch.Generator | None = None
) -> Tensor:
    """Time steps (n,) in [0, T): one uniform draw, then n equal strides (Kingma 2021, app. I.1).

    Each is uniform on its own. Together they cover the range, which lowers the loss's variance.
    """
    start = torch.rand((), generator=generator)
    u = (start + torch.arange(n) / n) % 1.0
    return (u * n_timesteps).long().clamp(max=n_timesteps - 1)
