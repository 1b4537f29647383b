"""FF-Parser: a learned attention map in Fourier space (MedSegDiff, sec. 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FFParser(nn.Module):
    """A learned weight A of every frequency: F^-1(A * F(m)) (MedSegDiff, eq. 5 and 6).

    The complex map A is learned on a small grid, laid out from low to high frequency on both
    sides of zero, and interpolated to the spectrum of whatever size comes in.

    Args:
        spatial_dims: Number of spatial axes, 2 or 3.
        channels: Number C of channels of the feature map.
        grid: Number of frequencies along each axis at which A is learned.
        init_std: Standard deviation of A's initial values; small, so that the output is near 0.
    """

    def __init__(
        self, spatial_dims: int, channels: int, grid: int = 9, init_std: float = 0.02
    ) -> None:
        super().__init__()
        half = grid // 2 + 1  # the last axis of a real signal's spectrum has one side only
        shape = (2, channels, *[grid] * (spatial_dims - 1), half)
        self.attention = nn.Parameter(torch.randn(shape) * init_std)

    def spectrum_weights(self, size: Sequence[int]) -> Tensor:
        """The map A (C, ...), complex, in ``torch.fft.rfftn``'s layout of real maps of ``size``."""
        target = (*size[:-1], size[-1] // 2 + 1)
        mode = "bilinear" if len(target) == 2 else "trilinear"
        parts = F.interpolate(self.attention.float(), size=target, mode=mode, align_corners=True)
        axes = tuple(range(2, parts.ndim - 1))
        parts = torch.fft.ifftshift(parts, dim=axes) if axes else parts
        return torch.complex(parts[0], parts[1])

    def forward(self, m: Tensor, weights: Tensor | None = None) -> Tensor:
        """The filtered feature map (B, C, *spatial), computed in float32.

        Args:
            m: Feature map (B, C, *spatial).
            weights: Result of ``spectrum_weights`` for this size; None: it is computed.
        """
        axes = tuple(range(2, m.ndim))
        weights = self.spectrum_weights(m.shape[2:]) if weights is None else weights
        spectrum = torch.fft.rfftn(m.float(), dim=axes, norm="ortho") * weights
        return torch.fft.irfftn(spectrum, s=m.shape[2:], dim=axes, norm="ortho").to(m.dtype)
