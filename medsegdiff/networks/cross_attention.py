"""Cross-attention from mask tokens to image tokens, whose keys and values are computed once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sine_positions(size: Sequence[int], channels: int) -> Tensor:
    """Position code of each token: sine and cosine along each axis (Vaswani et al. 2017, sec. 3.5).

    Wavelengths are 4, 8, 16, ... tokens; channels that are left over are 0.

    Returns:
        Position codes (channels, *size).
    """
    bands = channels // (2 * len(size))
    frequencies = torch.pi / 2.0 * 0.5 ** torch.arange(bands)
    axes = torch.meshgrid(*[torch.arange(s).float() for s in size], indexing="ij")
    phases = torch.cat([axis * frequencies.view(-1, *[1] * len(size)) for axis in axes])
    waves = torch.cat([phases.sin(), phases.cos()])
    return F.pad(waves, [0, 0] * len(size) + [0, channels - len(waves)])


class CrossAttention(nn.Module):
    """Residual attention from mask tokens to image tokens.

    Keys and values come from the image. The tokens of all its members are one sequence of queries,
    so nothing is copied. Both kinds of tokens have a position code. The image's tokens are averaged
    over neighbours until they are few enough, so the cost grows with the mask's tokens alone.

    Args:
        channels: Number C of channels of both feature maps; a multiple of ``heads``.
        heads: Number of attention heads.
        most_tokens: Largest number of tokens of an image.
    """

    def __init__(self, channels: int, heads: int = 4, most_tokens: int = 512) -> None:
        super().__init__()
        self.heads, self.most_tokens = heads, most_tokens
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def keys_and_values(self, m_i: Tensor) -> Tensor:
        """Keys and values (B, L, 2 C), L <= ``most_tokens``, of image features (B, C, *spatial)."""
        placed = m_i + sine_positions(m_i.shape[2:], m_i.shape[1]).to(m_i)
        pool = F.avg_pool2d if m_i.ndim == 4 else F.avg_pool3d
        while m_i[0, 0].numel() > self.most_tokens:
            sides = [min(2, size) for size in m_i.shape[2:]]
            m_i, placed = (pool(x, sides, ceil_mode=True) for x in (m_i, placed))
        key, value = self.key(_tokens(placed)), self.value(_tokens(m_i))
        return torch.cat([key, value], dim=-1)

    def forward(self, m_x: Tensor, keys_and_values: Tensor) -> Tensor:
        """Mask features (B * N, C, *spatial) plus what they attend to, same shape.

        Args:
            m_x: Mask features (B * N, C, *spatial).
            keys_and_values: Keys and values (B, L, 2 C) of the images.
        """
        images = keys_and_values.shape[0]
        tokens = _tokens(m_x)
        places = _tokens(sine_positions(m_x.shape[2:], m_x.shape[1]).to(m_x).unsqueeze(0))
        query = self.query(self.norm(tokens) + places)
        key, value = keys_and_values.chunk(2, dim=-1)
        together = query.reshape(images, -1, query.shape[-1])  # all members of an image
        q, k, v = self._split(together), self._split(key), self._split(value)
        attended = F.scaled_dot_product_attention(q, k, v)
        answer = self.out(attended.transpose(1, 2).flatten(2)).view(tokens.shape)
        return m_x + answer.transpose(1, 2).view(m_x.shape)

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, C) -> (B, heads, L, C / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _tokens(x: Tensor) -> Tensor:
    """(B, C, *spatial) -> (B, L, C)."""
    return x.flatten(2).transpose(1, 2)
