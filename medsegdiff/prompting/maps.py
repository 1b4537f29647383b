"""Attention → maps of words: resolutions together, along self-attention, against each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.prompting.attention import AttentionRecord

PEAK = 1.0 / 64.0
"""Share of a map's places that tell how much attention a word draws: the strongest ones."""


def word_maps(
    record: AttentionRecord, places: Sequence[Sequence[int]], coarsest: int = 1
) -> Tensor:
    """Mean attention to each word's tokens, resolutions averaged on the finest grid.

    Tang et al. 2023, eq. 5 and 6, with the mean instead of the sum.

    Args:
        record: of one or more runs of the U-Net.
        places: positions of each word's tokens, as in a ``Caption``.
        coarsest: grids with fewer places along their longer side are left out, unless all are.

    Returns:
        (B, K, h, w) in [0, 1].

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


def propagated(maps: Tensor, record: AttentionRecord, power: int) -> Tensor:
    """Maps (B, K, h, w) spread along self-attention S: S^power · map.

    Nguyen et al., "Dataset Diffusion", NeurIPS 2023, eq. 4; the finest self-attention that was
    recorded. Without one, or with power 0, the maps stay as they are.
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
    """Probabilities of no word, and of each.

    Each map is scaled to its own range, and has to reach ``background`` of it; of those that do,
    the highest wins: softmax(inverse_temperature · (background, map_1, …, map_K)).

    Args:
        maps: (B, K, *spatial), of the words that are there.
        background: in (0, 1).
        inverse_temperature: how much more probable the higher one is.

    Returns:
        (B, K + 1, *spatial), summing to 1.
    """
    ranged = scaled(maps)
    none = torch.full_like(ranged[:, :1], background)
    return (inverse_temperature * torch.cat([none, ranged], dim=1)).softmax(dim=1)


def peak(maps: Tensor) -> Tensor:
    """(B, K) mean of maps (B, K, h, w) at the ``PEAK`` share of places where each is strongest."""
    flat = maps.flatten(2)
    return flat.topk(max(1, round(PEAK * flat.shape[2])), dim=2).values.mean(dim=2)


def scaled(maps: Tensor) -> Tensor:
    """Each map of (B, K, *spatial) over its own range, in [0, 1]."""
    axes = tuple(range(2, maps.ndim))
    low, high = maps.amin(dim=axes, keepdim=True), maps.amax(dim=axes, keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-12)


def relative(maps: Tensor) -> Tensor:
    """Each map of (B, K, *spatial) over its own mean."""
    return maps / maps.mean(dim=tuple(range(2, maps.ndim)), keepdim=True).clamp_min(1e-12)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, K, h, w) on another grid: bilinear, averaged where it is coarser."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False, antialias=True)
