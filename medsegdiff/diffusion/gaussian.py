"""The Gaussian process: q(x_t | x_0) and the posterior q(x_s | x_t, x_0) (DDPM, sec. 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medsegdiff.diffusion.prediction import v_from_x_0_and_eps
from medsegdiff.diffusion.schedule import ScheduleName, make_schedule
from medsegdiff.types import Target


class GaussianProcess(nn.Module):
    """Noises masks along one schedule; holds no weights.

    Args:
        schedule: name of the noise schedule.
        n_timesteps: T; time steps are 0 ... T - 1, and T - 1 is pure noise with ``zero_snr``.
        input_scale: b of the schedule (see ``schedule.scale_input``).
        zero_snr: leave nothing of x_0 at the last step.
    """

    def __init__(
        self,
        schedule: ScheduleName = "cosine",
        n_timesteps: int = 1000,
        input_scale: float = 1.0,
        zero_snr: bool = True,
    ) -> None:
        super().__init__()
        self.n_timesteps = n_timesteps
        # Not a buffer: `.half()` or `.to(dtype)` on the model must not degrade the schedule.
        self.alphas_cumprod = make_schedule(
            schedule, n_timesteps, input_scale=input_scale, zero_snr=zero_snr
        )

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(a, s) with x_t = a x_0 + s eps, each (B, 1, ..., 1) in the dtype and place of ``like``.

        Args:
            t: (B,) integer time steps in [0, T).
            like: (B, ...) the tensor that they will multiply.
        """
        gathered = self.alphas_cumprod.to(t.device)[t].view(-1, *[1] * (like.ndim - 1))
        return gathered.sqrt().to(like), (1.0 - gathered).sqrt().to(like)

    def add_noise(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """Sample of q(x_t | x_0) for noise ``eps`` (DDPM, eq. 4); all (B, K, *spatial)."""
        a, s = self.coefficients(t, x_0)
        return a * x_0 + s * eps

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor, target: Target) -> Tensor:
        """What a network trained on ``target`` should put out; x_0 as a mask in [-1, 1]."""
        if target == "x_0":
            return x_0
        if target == "eps":
            return eps
        return v_from_x_0_and_eps(x_0, eps, *self.coefficients(t, x_0))


def posterior_mean_coefficients(
    alphas_cumprod: float, alphas_cumprod_prev: float
) -> tuple[float, float, float]:
    """(of x_0, of x_t, variance) of q(x_s | x_t, x_0) between any two times s < t (DDPM, eq. 7).

    The step's own alpha is alphas_cumprod(t) / alphas_cumprod(s), so that respaced grids keep
    the process's marginals.

    Example:
        >>> posterior_mean_coefficients(0.5, 1.0)
        (1.0, 0.0, 0.0)
    """
    alpha = alphas_cumprod / alphas_cumprod_prev
    beta = 1.0 - alpha
    rest = 1.0 - alphas_cumprod
    of_x_0 = alphas_cumprod_prev**0.5 * beta / rest
    of_x_t = alpha**0.5 * (1.0 - alphas_cumprod_prev) / rest
    return of_x_0, of_x_t, beta * (1.0 - alphas_cumprod_prev) / rest


def low_discrepancy_timesteps(
    n: int, n_timesteps: int, generator: torch.Generator | None = None
) -> Tensor:
    """(n,) time steps in [0, T): one uniform draw, then n equal strides (Kingma 2021, app. I.1).

    Each is uniform on its own, together they cover the range, which lowers the loss's variance.
    """
    start = torch.rand((), generator=generator)
    u = (start + torch.arange(n) / n) % 1.0
    return (u * n_timesteps).long().clamp(max=n_timesteps - 1)
