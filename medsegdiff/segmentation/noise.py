"""Noise that depends on (seed, case, member, place) alone.

So the same seed gives the same masks whatever the batch size, the order of members or the number
of workers, and two windows that overlap see the same noise where they do.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 16
"""Side, in voxels, of the blocks that a large image's noise is drawn in."""
LARGEST_BLOCK = 2**16
"""Voxels of an image's states up to which its noise is one block."""


def generator_for(*key: object) -> torch.Generator:
    """A CPU generator seeded by the key's text, the same on every machine.

    Example:
        >>> a, b = generator_for(0, "case", 1), generator_for(0, "case", 1)
        >>> bool(torch.rand((), generator=a) == torch.rand((), generator=b))
        True
    """
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def blocks_of(grid: Sequence[int]) -> list[int]:
    """Side along each axis of the blocks that an image's noise is drawn in.

    A small image is one block, which is fastest; of a large one only a window's blocks are made.

    Args:
        grid: spatial size of the image's states.
    """
    return list(grid) if math.prod(grid) <= LARGEST_BLOCK else [BLOCK] * len(grid)


def noise_field(
    key: Sequence[object], channels: int, window: Sequence[slice], blocks: Sequence[int]
) -> Tensor:
    """Standard normal noise of an endless field, in a window of it.

    The field is drawn block by block, each from its own generator, so only the window's blocks
    are ever made.

    Args:
        key: what the field belongs to, such as (seed, case, member).
        channels: K.
        window: start and stop along each spatial axis, in voxels of the field.
        blocks: sides of the blocks.

    Returns:
        (K, *window) float32 on the CPU.
    """
    starts = [s.start // side for s, side in zip(window, blocks, strict=True)]
    stops = [-(-s.stop // side) for s, side in zip(window, blocks, strict=True)]
    indices = [range(a, b) for a, b in zip(starts, stops, strict=True)]
    sizes = [len(i) * side for i, side in zip(indices, blocks, strict=True)]
    field = torch.empty(channels, *sizes)
    for index in itertools.product(*indices):
        place = [
            slice((i - a) * side, (i - a + 1) * side)
            for i, a, side in zip(index, starts, blocks, strict=True)
        ]
        drawn = torch.randn((channels, *blocks), generator=generator_for(*key, *index))
        field[(slice(None), *place)] = drawn
    crop = [
        slice(s.start - a * side, s.stop - a * side)
        for s, a, side in zip(window, starts, blocks, strict=True)
    ]
    return field[(slice(None), *crop)]


class MemberNoise:
    """All noise of some members in a window: first x_T, then what a stochastic sampler adds.

    Args:
        seed: of the run.
        case: name of the case.
        members: indices of the members in the batch, in order.
        window: its place in the image, in voxels.
        size: of the window's states, in their own voxels.
        blocks: sides of the blocks of noise, from ``blocks_of``.
        stride: the image's voxels along each axis of a state's.
        mirrored: spatial axes along which the network sees the window mirrored; its noise is too.
        scale: standard deviation of the noise.
    """

    def __init__(
        self,
        seed: int,
        case: str,
        members: Sequence[int],
        window: Sequence[slice],
        size: Sequence[int],
        blocks: Sequence[int],
        stride: int = 1,
        mirrored: Sequence[int] = (),
        scale: float = 1.0,
    ) -> None:
        self.keys = [(seed, case, m) for m in members]
        starts = [place.start // stride for place in window]
        self.blocks = blocks
        self.window = [slice(a, a + n) for a, n in zip(starts, size, strict=True)]
        self.mirrored = [2 + axis for axis in mirrored]
        self.scale = scale
        self.draws = itertools.count()

    def start(self, channels: int) -> Tensor:
        """x_T: (N, K, *size) float32 on the CPU, K = ``channels``."""
        draw = next(self.draws)
        fields = [
            noise_field((*key, draw), channels, self.window, self.blocks) for key in self.keys
        ]
        noise = torch.stack(fields).flip(self.mirrored)
        return noise if self.scale == 1.0 else noise * self.scale

    def __call__(self, x: Tensor) -> Tensor:
        """Fresh normal noise like ``x`` (N, K, *size), member by member."""
        drawn = self.start(x.shape[1])
        if x.is_cuda:  # pinned, so that the host does not wait for the device
            drawn = drawn.pin_memory()
        return drawn.to(x, non_blocking=True)
