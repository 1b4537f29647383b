"""Maps of words from attention: merged resolutions, spread by self-attention, in competition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.prompting.attention import AttentionRecord

PEAK = 1.0 / 64.0
"""Share of a map's places, the strongest ones, whose mean is the attention to a word."""


def word_maps(
    record: AttentionRecord, places: Sequence[Sequence[int]], coarsest: int = 1
) -> Tensor:
    """Mean attention to each word's tokens, averaged over resolutions on the finest grid.

    Tang et al. 2023, eq. 5 and 6, with the mean instead of the sum.

    Args:
        record: Record of one or more runs of the U-Net.
        places: Positions of each word's tokens, as in a ``Caption``.
        coarsest: Number of places along the longer side of the coarsest grid to use; if no grid is
            as fine, all are used.

    Returns:
        Maps (B, K, h, w) in [0, 1].

    Raises:
        ValueError: nothing was recorded.
    """
    means = record.mean_cross()
    if not means:
        raise ValueError("no cross-attention was recorded.")
    kept = [grid for grid in means if max(grid) >= coarsest] or list(means)
    finest = max(kept, key=lambda grid: grid[0] * grid[1])
    resized = [resize(means[grid], finest) for grid in kept]
    mean = torch.stack(resized).mean(dim=0)
    return torch.stack([mean[:, list(tokens)].mean(dim=1) for tokens in places], dim=1)


def token_sums(
    record: AttentionRecord, places: Sequence[Sequence[int]], coarsest: int = 1
) -> Tensor:
    """Attention to each word as the sum over its tokens, else as ``word_maps``.

    All tokens of a caption together have 1 at each place: what words get adds up to 1 at most.
    """
    counts = torch.tensor([len(tokens) for tokens in places])
    maps = word_maps(record, places, coarsest)
    return maps * counts.to(maps).view(-1, 1, 1)


def propagated(maps: Tensor, record: AttentionRecord, power: int) -> Tensor:
    """Maps (B, K, h, w) spread along self-attention S: S^power · map.

    Nguyen et al., "Dataset Diffusion", NeurIPS 2023, eq. 4, with the finest recorded
    self-attention. Without one, or with power 0, the maps are unchanged.
    """
    own = record.mean_own()
    if own is None or power < 1:
        return maps
    grid, attention = own
    flat = resize(maps, grid).flatten(2).transpose(1, 2)
    for _ in range(power):
        flat = attention @ flat
    return resize(flat.transpose(1, 2).unflatten(2, grid), maps.shape[-2:])


def competing(maps: Tensor, background: float, inverse_temperature: float) -> Tensor:
    """Probabilities of no word and of each word.

    Each map is scaled to its own range. At each place, the highest map wins if it is above
    ``background``: softmax(inverse_temperature · (background, map_1, …, map_K)).

    Args:
        maps: Maps (B, K, *spatial) of the present words.
        background: Threshold of the background, in (0, 1).
        inverse_temperature: Sharpness of the competition: factor in the softmax.

    Returns:
        Probabilities (B, K + 1, *spatial), summing to 1.
    """
    ranged = scaled(maps)
    none = torch.full_like(ranged[:, :1], background)
    return (inverse_temperature * torch.cat([none, ranged], dim=1)).softmax(dim=1)


def peak(maps: Tensor) -> Tensor:
    """(B, K) mean of maps (B, K, h, w) over the share ``PEAK`` of its strongest places."""
    flat = maps.flatten(2)
    return flat.topk(max(1, round(PEAK * flat.shape[2])), dim=2).values.mean(dim=2)


def scaled(maps: Tensor) -> Tensor:
    """Maps (B, K, *spatial), each scaled by its own range to [0, 1]."""
    axes = tuple(range(2, maps.ndim))
    low, high = maps.amin(dim=axes, keepdim=True), maps.amax(dim=axes, keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-12)


def relative(maps: Tensor) -> Tensor:
    """Maps (B, K, *spatial), each divided by its own mean."""
    return maps / maps.mean(dim=tuple(range(2, maps.ndim)), keepdim=True).clamp_min(1e-12)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, K, h, w) on another grid: bilinear, or averaged if the grid is coarser."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False, antialias=True)
