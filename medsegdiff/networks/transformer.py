"""SS-Former: transformer bottleneck of image and mask in Fourier space (MedSegDiff-V2, 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NeuralBandPassFilter(nn.Module):
    """Learned weights over spatial frequency, scaled and shifted by the time (AdaIN-like).

    The profile is learned at ``bands`` radii from 0 to the corner of the spectrum and interpolated
    linearly, so it serves every size. At the start all weights are 1.

    Args:
        channels: Number C of channels of the tokens.
        time_channels: Size of the time embedding.
        bands: Number of radii.
    """

    def __init__(self, channels: int, time_channels: int, bands: int = 8) -> None:
        super().__init__()
        self.profile = nn.Parameter(torch.ones(bands, channels))
        self.modulation = nn.Linear(time_channels, 2 * channels)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def weights(self, size: torch.Size) -> Tensor:
        """Profile (*size of the spectrum, C) at each frequency of ``rfftn`` over ``size``."""
        device = self.profile.device
        axes = [torch.fft.fftfreq(s, device=device) for s in size[:-1]]
        axes.append(torch.fft.rfftfreq(size[-1], device=device))
        squared = sum(f.square() for f in torch.meshgrid(*axes, indexing="ij"))
        radius = torch.as_tensor(squared).sqrt() * 2.0 / len(size) ** 0.5  # in [0, 1]
        position = radius * (len(self.profile) - 1)
        low = position.long().clamp(max=len(self.profile) - 2)
        weight = (position - low).unsqueeze(-1)
        return self.profile[low] * (1.0 - weight) + self.profile[low + 1] * weight

    def forward(self, x: Tensor, time: Tensor, profile: Tensor | None = None) -> Tensor:
        """The filtered tokens (B, *spatial, C), computed in float32.

        Args:
            x: Tokens (B, *spatial, C).
            time: Time embedding (B or 1, time_channels).
            profile: Result of ``weights`` for this size; None: it is computed.
        """
        axes = tuple(range(1, x.ndim - 1))
        size = x.shape[1:-1]
        modulation = self.modulation(time).float().view(len(time), *[1] * len(axes), -1)
        scale, shift = modulation.chunk(2, dim=-1)
        profile = self.weights(size) if profile is None else profile
        band = profile * (1.0 + scale) + shift
        spectrum = torch.fft.rfftn(x.float(), dim=axes, norm="ortho") * band
        return torch.fft.irfftn(spectrum, s=size, dim=axes, norm="ortho")


class FourierCrossAttention(nn.Module):
    """One block of the SS-Former: cross-attention from one kind of tokens to the other.

    The paper builds the affinity of Fourier-transformed tokens, M = (F(a) W_q)(F(b) W_k)^T, weighs
    it with the neural band-pass filter and transforms it back. The transform is linear along the
    tokens, so that equals the affinity of band-pass filtered queries and unfiltered keys, which is
    how it is computed here: F^-1 (g F(a) W_q) (b W_k)^T. A softmax keeps it bounded at any length.

    Args:
        channels: Number C of channels of both kinds of tokens; a multiple of ``heads``.
        time_channels: Size of the time embedding.
        heads: Number of attention heads.
    """

    def __init__(self, channels: int, time_channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_context = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.band_pass = NeuralBandPassFilter(channels, time_channels)
        self.out = nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 2 * channels),
            nn.GELU(),
            nn.Linear(2 * channels, channels),
        )

    def _split(self, x: Tensor) -> Tensor:
        return x.flatten(1, -2).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(
        self, tokens: Tensor, context: Tensor, time: Tensor, profile: Tensor | None = None
    ) -> Tensor:
        """The tokens after attention to the context, same shape.

        Args:
            tokens: Tokens (B, *spatial, C) that give the queries.
            context: Tokens (B, *spatial, C) that give keys and values.
            time: Time embedding (B or 1, time_channels).
            profile: Result of ``NeuralBandPassFilter.weights`` for this size; None: computed.
        """
        query = self.band_pass(self.query(self.norm_query(tokens)), time, profile)
        key, value = self.key_value(self.norm_context(context)).chunk(2, dim=-1)
        q, k, v = (
            self._split(query.to(value.dtype).contiguous()),
            self._split(key),
            self._split(value),
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(attended).view(tokens.shape)
        return tokens + self.mlp(tokens)


class SSFormer(nn.Module):
    """Semantic condition: two mirrored blocks, noise -> semantic, then semantic -> noise.

    Args:
        channels: Number C of channels of both kinds of tokens; a multiple of ``heads``.
        time_channels: Size of the time embedding.
        heads: Number of attention heads.
    """

    def __init__(self, channels: int, time_channels: int, heads: int = 4) -> None:
        super().__init__()
        self.noise_to_semantic = FourierCrossAttention(channels, time_channels, heads)
        self.semantic_to_noise = FourierCrossAttention(channels, time_channels, heads)

    def profiles(self, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Filters of both blocks at the frequencies of maps of ``size``; the same at every step."""
        blocks = (self.noise_to_semantic, self.semantic_to_noise)
        first, second = (block.band_pass.weights(size) for block in blocks)
        return first, second

    def forward(
        self,
        x: Tensor,
        semantic: Tensor,
        time: Tensor,
        profiles: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Mask features (B * N, C, *spatial) conditioned on the image.

        Args:
            x: Mask features (B * N, C, *spatial).
            semantic: Image features (B, C, *spatial).
            time: Time embedding (B * N or 1, time_channels).
            profiles: Result of ``profiles`` for this size; None: computed.
        """
        first, second = profiles or self.profiles(x.shape[2:])
        members = x.shape[0] // semantic.shape[0]
        e = x.movedim(1, -1)
        c = semantic.movedim(1, -1).repeat_interleave(members, dim=0)  # a few hundred tokens
        c = self.noise_to_semantic(c, e, time, first)
        return self.semantic_to_noise(e, c, time, second).movedim(-1, 1)
