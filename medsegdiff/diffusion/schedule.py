"""Noise schedules: how much of the clean mask is left at each of T time steps.

Every schedule is a frozen float64 vector ``alphas_cumprod`` of shape (T,), falling in t; it is
cast only when values are gathered from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

ScheduleName = Literal["linear", "cosine", "sigmoid"]


def linear(n_timesteps: int) -> Tensor:
    """Betas rising linearly from 1e-4 to 0.02 at T = 1000, rescaled for other T (DDPM, sec. 4)."""
    scale = 1000.0 / n_timesteps
    betas = torch.linspace(1e-4 * scale, 0.02 * scale, n_timesteps, dtype=torch.float64)
    return torch.cumprod(1.0 - betas.clamp(max=0.999), dim=0)


def cosine(n_timesteps: int, offset: float = 0.008) -> Tensor:
    """Squared cosine with betas clipped at 0.999 (Nichol & Dhariwal 2021, eq. 17)."""
    u = torch.arange(n_timesteps + 1, dtype=torch.float64) / n_timesteps
    f = torch.cos((u + offset) / (1.0 + offset) * math.pi / 2.0).square()
    betas = (1.0 - f[1:] / f[:-1]).clamp(max=0.999)
    return torch.cumprod(1.0 - betas, dim=0)


def sigmoid(n_timesteps: int, start: float = -3.0, end: float = 3.0) -> Tensor:
    """Sigmoid schedule (Chen 2023, "On the importance of noise scheduling", alg. 1, tau = 1)."""
    u = torch.linspace(0.0, 1.0, n_timesteps + 1, dtype=torch.float64)[1:]
    low, high = torch.sigmoid(torch.tensor([start, end], dtype=torch.float64))
    gamma = (high - torch.sigmoid(u * (end - start) + start)) / (high - low)
    return gamma.clamp(1e-9, 1.0 - 1e-9)


SCHEDULES: dict[str, Callable[[int], Tensor]] = {
    "linear": linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
}


def zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """The schedule (T,), shifted and scaled to 0 at its last step (Lin et al. 2024, alg. 1)."""
    root = alphas_cumprod.sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    return root.square()


def scale_input(alphas_cumprod: Tensor, scale: float) -> Tensor:
    """The schedule (T,) that equals shrinking x_0 by ``scale`` and restoring unit variance.

    A mask is easy to see through noise; b < 1 makes every step harder (Chen 2023, sec. 2.3):
    gamma_b = b^2 gamma / ((b^2 - 1) gamma + 1).
    """
    b2 = scale * scale
    return b2 * alphas_cumprod / ((b2 - 1.0) * alphas_cumprod + 1.0)


def make_schedule(
    name: ScheduleName,
    n_timesteps: int,
    *,
    input_scale: float = 1.0,
    zero_snr: bool = True,
) -> Tensor:
    """Build ``alphas_cumprod``, float64 of shape (n_timesteps,), falling, in [0, 1).

    Raises:
        ValueError: for an unknown name, fewer than two time steps or a non-positive scale.

    Example:
        >>> gamma = make_schedule("cosine", 1000, input_scale=0.5)
        >>> gamma.shape, float(gamma[-1])
        (torch.Size([1000]), 0.0)
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {sorted(SCHEDULES)}. Got {name!r}.")
    if n_timesteps < 2:
        raise ValueError(f"n_timesteps must be at least 2. Got {n_timesteps}.")
    if input_scale <= 0:
        raise ValueError(f"input_scale must be positive. Got {input_scale}.")
    alphas_cumprod = scale_input(SCHEDULES[name](n_timesteps), input_scale)
    return zero_terminal_snr(alphas_cumprod) if zero_snr else alphas_cumprod
