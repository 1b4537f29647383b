"""What every process can do: all that the model, training and samplers know of one."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from medsegdiff.core.types import Target
from medsegdiff.diffusion.grid import TimeGrid


class Process(Protocol):
    """Noises masks, and reads a network's output; time steps are 0 ... T - 1.

    Masks and states are (B, K, *spatial), masks in [-1, 1]; ``eps`` is standard normal noise, the
    only randomness of every process; ``t`` is (B,) or (1,), integer.
    """

    n_timesteps: int
    targets: tuple[Target, ...]
    """What a network may predict."""

    def add_noise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Sample of q(x_t | x_0)."""
        ...

    def start(self, eps: Tensor) -> Tensor:
        """x_T, which knows nothing of x_0."""
        ...

    def network_input(self, x_t: Tensor, t: Tensor, anchor: Tensor) -> Tensor:
        """What the network sees of x_t; ``anchor``: logits of the images' anchors."""
        ...

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor, target: Target) -> Tensor:
        """What a network trained on ``target`` should put out; x_0 as a mask in [-1, 1]."""
        ...

    def x_0_from_output(self, output: Tensor, x_t: Tensor, t: Tensor, target: Target) -> Tensor:
        """Clean mask in [-1, 1] from a network's output; for ``x_0`` that is logits."""
        ...

    def snr(self, t: Tensor) -> Tensor:
        """(B,) signal-to-noise ratio."""
        ...

    def gain(self, t: Tensor, target: Target) -> Tensor:
        """(B,) squared error of the target for a squared error 1 of x_0."""
        ...

    def grid(self, steps: int, start: float = 1.0) -> TimeGrid:
        """``steps`` time steps for a sampler, from the fraction ``start`` of T down."""
        ...


def low_discrepancy_timesteps(
    n: int, n_timesteps: int, generator: torch.Generator | None = None
) -> Tensor:
    """(n,) time steps in [0, T): one uniform draw, then n equal strides (Kingma 2021, app. I.1).

    Each is uniform on its own, together they cover the range, which lowers the loss's variance.
    """
    start = torch.rand((), generator=generator)
    u = (start + torch.arange(n) / n) % 1.0
    return (u * n_timesteps).long().clamp(max=n_timesteps - 1)
