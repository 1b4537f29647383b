"""Cuts large pictures into overlapping squares, and merges what was found in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

EDGE = 0.05
"""Weight of a window's edge, as a share of its middle's."""


def windowed(picture: Tensor, sides: Sequence[int], find: Callable[[Tensor], Tensor]) -> Tensor:
    """Maps of a picture, as a weighted mean over windows of several sizes.

    Args:
        picture: Picture (1 or 3, H, W).
        sides: Sides of the windows in pixels; 0 or a side beyond the picture's: the whole picture.
            Windows overlap by half. None: the whole picture.
        find: Function from a picture (1 or 3, h, w) to maps (B, K, h, w).

    Returns:
        Maps (B, K, H, W). A window's middle counts most, and each size as much as the others.
    """
    maps = [_of_one_size(picture, side, find) for side in sides or (0,)]
    return torch.stack(maps).mean(dim=0)


def _of_one_size(picture: Tensor, side: int, find: Callable[[Tensor], Tensor]) -> Tensor:
    height, width = picture.shape[-2:]
    if side < 1 or side >= max(height, width):
        return find(picture)
    total, weights = torch.zeros(()), torch.zeros(1, 1, height, width, device=picture.device)
    for top, bottom in spans(height, side):
        for left, right in spans(width, side):
            found = find(picture[:, top:bottom, left:right])
            weight = _hill(bottom - top).view(-1, 1) * _hill(right - left)
            weight = weight.to(found)
            if not total.ndim:
                total = found.new_zeros(*found.shape[:2], height, width)
            total[..., top:bottom, left:right] += weight * found
            weights[..., top:bottom, left:right] += weight
    return total / weights.to(total)


def spans(length: int, side: int) -> Iterator[tuple[int, int]]:
    """Starts and ends of windows along an axis, evenly spread, that overlap by half at least.

    >>> list(spans(10, 4))
    [(0, 4), (2, 6), (4, 8), (6, 10)]
    >>> list(spans(3, 4))
    [(0, 3)]
    """
    side = min(side, length)
    count = 1 + -(-2 * (length - side) // side)
    for k in range(count):
        start = round(k * (length - side) / max(1, count - 1))
        yield start, start + side


def _hill(length: int) -> Tensor:
    """Weights (length,) that fall linearly from the middle to ``EDGE`` at both ends."""
    places = (torch.arange(length) + 0.5) / length
    return (1.0 - (2.0 * places - 1.0).abs()).clamp_min(EDGE)
