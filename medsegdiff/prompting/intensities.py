"""Conversion of medical intensities to pictures for text-to-image models."""

from __future__ import annotations

import torch
from torch import Tensor


def as_picture(values: Tensor, lowest: float = 0.005, highest: float = 0.995) -> Tensor:
    """Scale (C, *spatial) to [-1, 1], with quantiles of all values at the ends; others are clipped.

    One or three channels are kept; of any other number, only the first channel.
    """
    chosen = values if len(values) in (1, 3) else values[:1]
    flat = chosen.flatten().float()
    step = max(1, flat.numel() // 1_000_000)
    ends = torch.quantile(flat[::step], torch.tensor([lowest, highest], device=flat.device))
    low, high = float(ends[0]), float(ends[1])
    return ((chosen.float() - low) / max(high - low, 1e-6) * 2.0 - 1.0).clamp(-1.0, 1.0)
