"""The rectified flow: straight lines from noise to masks (Liu et al. 2023; Lipman et al. 2023)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from medsegdiff.diffusion.affine import AffineProcess
from medsegdiff.diffusion.prediction import anchor_mask

Base = Literal["standard", "anchor"]
"""Distribution that the lines start from: N(0, scale^2), or N(the anchor's mask, scale^2)."""


class RectifiedFlow(AffineProcess):
    """x_t = (1 - tau) x_0 + tau e at time tau = (t + 1) / T, with e from the base distribution.

    With e = base_scale eps that is affine. A base around the anchor's mask mu only moves the
    state, by tau mu: masks are noised and sampled without mu, and the network sees it added. So
    each sampler serves both bases.

    Args:
        n_timesteps: Number T of time steps; at T - 1 nothing of x_0 is left.
        base: Mean of the base distribution: 0, or the mask of the image's anchor.
        base_scale: Standard deviation of the base distribution.

    Raises:
        ValueError: for an unknown base, fewer than two time steps or a non-positive scale.
    """

    def __init__(
        self, n_timesteps: int = 1000, base: Base = "standard", base_scale: float = 1.0
    ) -> None:
        if base not in ("standard", "anchor"):
            raise ValueError(f"base must be 'standard' or 'anchor'. Got {base!r}.")
        if n_timesteps < 2:
            raise ValueError(f"n_timesteps must be at least 2. Got {n_timesteps}.")
        if base_scale <= 0:
            raise ValueError(f"base_scale must be positive. Got {base_scale}.")
        tau = torch.arange(1, n_timesteps + 1, dtype=torch.float64) / n_timesteps
        super().__init__(1.0 - tau, base_scale * tau)
        self.base, self.base_scale = base, base_scale

    def start(self, eps: Tensor) -> Tensor:
        """The state x_T (B, K, *spatial), without the mean of the base."""
        return self.base_scale * eps

    def network_input(self, x_t: Tensor, t: Tensor, anchor: Tensor) -> Tensor:
        """x_t plus the mean of the base, which is made of the anchors' logits (B, K, *spatial)."""
        if self.base == "standard":
            return x_t
        a, _ = self.coefficients(t, x_t)
        return x_t + (1.0 - a) * anchor_mask(anchor, x_t)

    def velocity(self, x_0: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """The slope of the line, v = dx_t / dtau = e - x_0 (Liu et al. 2023, eq. 1)."""
        return self.base_scale * eps - x_0

    def x_0_from_velocity(self, x_t: Tensor, v: Tensor, a: Tensor, s: Tensor) -> Tensor:
        """The end of the line: x_0 = x_t - tau v."""
        return x_t - (1.0 - a) * v
