"""Conversions between what a network may predict: ``x_0``, ``eps`` and ``v``.

A noisy state obeys ``x_t = a x_0 + s eps`` (DDPM, eq. 4). The velocity here is that of a process
with a^2 + s^2 = 1, ``v = a eps - s x_0`` (Salimans & Ho 2022, app. D). All tensors share one
shape; ``a`` and ``s`` are numbers or broadcast against them. Where a conversion divides by zero
(eps to x_0 at zero SNR) the information is not there; the divisor is clamped and the result is
whatever the caller clips it to.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

Scalar = TypeVar("Scalar", Tensor, float)

TINY = 1e-8


def _safe(divisor: Tensor | float) -> Tensor | float:
    return divisor.clamp(min=TINY) if isinstance(divisor, Tensor) else max(divisor, TINY)


def x_0_from_eps(x_t: Tensor, eps: Tensor, a: Scalar, s: Scalar) -> Tensor:
    """Clean mask from the noise (DDPM, eq. 4, solved for x_0)."""
    return (x_t - s * eps) / _safe(a)


def eps_from_x_0(x_t: Tensor, x_0: Tensor, a: Scalar, s: Scalar) -> Tensor:
    """Noise from the clean mask (DDPM, eq. 4, solved for eps)."""
    return (x_t - a * x_0) / _safe(s)


def v_from_x_0_and_eps(x_0: Tensor, eps: Tensor, a: Scalar, s: Scalar) -> Tensor:
    """Velocity from the clean mask and the noise (Salimans & Ho 2022, app. D)."""
    return a * eps - s * x_0


def x_0_from_v(x_t: Tensor, v: Tensor, a: Scalar, s: Scalar) -> Tensor:
    """Clean mask from the velocity; defined at every SNR."""
    return a * x_t - s * v


def eps_from_v(x_t: Tensor, v: Tensor, a: Scalar, s: Scalar) -> Tensor:
    """Noise from the velocity; defined at every SNR."""
    return s * x_t + a * v


def mask_from_logits(logits: Tensor) -> Tensor:
    """Mask in [-1, 1] from logits over the K classes, both (B, K, *spatial)."""
    return 2.0 * torch.softmax(logits, dim=1) - 1.0


def anchor_mask(anchor: Tensor, like: Tensor) -> Tensor:
    """Mask in [-1, 1] of anchors (B, K, *spatial) for each member in ``like`` (B * N, K, *spatial).

    No gradient flows back: the anchor is trained by its own loss.
    """
    mask = mask_from_logits(anchor.detach().float())
    return mask.repeat_interleave(len(like) // len(anchor), dim=0).to(like)


def mask_to_probability(x_0: Tensor) -> Tensor:
    """Class probabilities (B, K, *spatial) that sum to 1, from a mask in [-1, 1].

    Exact for a mask that came from a softmax; for ``eps`` and ``v`` targets, whose channels need
    not sum to K - 2, the rescaled mask is normalised.
    """
    positive = ((x_0 + 1.0) / 2.0).clamp(min=TINY)
    return positive / positive.sum(dim=1, keepdim=True)
