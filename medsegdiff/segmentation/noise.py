"""Noise that depends on (seed, case, member, place) alone, or on a number that cases share.

So the same seed gives the same masks for any batch size, order of members or number of workers,
and two windows share the noise where they overlap.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 16
"""Side of the blocks that a large image's noise is drawn in, in voxels."""
SHARED = "shared"
"""Key of noise that all cases have in common."""
LARGEST_BLOCK = 2**16
"""Largest number of voxels of an image's states whose noise is drawn as one block."""


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
    """Side along each axis of the blocks that an image's noise is drawn in, in voxels.

    A small image is one block, which is fastest. For a large one only a window's blocks are drawn.

    Args:
        grid: Spatial size of the image's states, in voxels.
    """
    return list(grid) if math.prod(grid) <= LARGEST_BLOCK else [BLOCK] * len(grid)


def noise_field(
    key: Sequence[object], channels: int, window: Sequence[slice], blocks: Sequence[int]
) -> Tensor:
    """Standard normal noise in a window of an unbounded field.

    The field is drawn block by block, each from its own generator, so only the window's blocks
    are drawn.

    Args:
        key: Identity of the field, such as (seed, case, member).
        channels: Number K of channels.
        window: Start and stop along each spatial axis, in voxels of the field.
        blocks: Side of the blocks along each axis, in voxels.

    Returns:
        Noise (K, *window) float32 on the CPU.
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
    """All noise of some members in a window: first x_T, then the noise of a stochastic sampler.

    Args:
        seed: Seed of the run.
        case: Name of the case.
        members: Indices of the members in the batch, in order.
        window: Place of the window in the image, in voxels.
        size: Spatial size of the window's states, in voxels of the states.
        blocks: Side of the blocks of noise along each axis, from ``blocks_of``.
        stride: Number of the image's voxels along each axis of a state's voxel, of all axes or of
            each.
        mirrored: Spatial axes along which the window and its noise are mirrored.
        scale: Standard deviation of the noise.
        shared: Numbers of the noise that the first members take, the same in every case and for
            every seed.
    """

    def __init__(
        self,
        seed: int,
        case: str,
        members: Sequence[int],
        window: Sequence[slice],
        size: Sequence[int],
        blocks: Sequence[int],
        stride: int | Sequence[int] = 1,
        mirrored: Sequence[int] = (),
        scale: float = 1.0,
        shared: Sequence[int] = (),
    ) -> None:
        self.keys: list[tuple[object, ...]] = [
            (SHARED, shared[m]) if m < len(shared) else (seed, case, m) for m in members
        ]
        strides = [stride] * len(window) if isinstance(stride, int) else stride
        starts = [place.start // s for place, s in zip(window, strides, strict=True)]
        self.blocks = blocks
        self.window = [slice(a, a + n) for a, n in zip(starts, size, strict=True)]
        self.mirrored = [2 + axis for axis in mirrored]
        self.scale = scale
        self.draws = itertools.count()

    def start(self, channels: int) -> Tensor:
        """The state x_T (N, K, *size) float32 on the CPU, K = ``channels``."""
        draw = next(self.draws)
        fields = [
            noise_field((*key, draw), channels, self.window, self.blocks) for key in self.keys
        ]
        noise = torch.stack(fields).flip(self.mirrored)
        return noise if self.scale == 1.0 else noise * self.scale

    def __call__(self, x: Tensor) -> Tensor:
        """New normal noise like ``x`` (N, K, *size), member by member."""
        drawn = self.start(x.shape[1])
        if x.is_cuda:  # pinned, so that the host does not wait for the device
            drawn = drawn.pin_memory()
        return drawn.to(x, non_blocking=True)


class JoinedNoise:
    """The noise of several equally large groups of members, one group after the other.

    Args:
        parts: Noise of each group.
    """

    def __init__(self, parts: Sequence[MemberNoise]) -> None:
        self.parts = parts

    def start(self, channels: int) -> Tensor:
        """The states x_T (groups * N, K, *size) float32 on the CPU, K = ``channels``."""
        return torch.cat([part.start(channels) for part in self.parts])

    def __call__(self, x: Tensor) -> Tensor:
        """New normal noise like ``x`` (groups * N, K, *size), member by member."""
        groups = x.chunk(len(self.parts))
        return torch.cat([part(one) for part, one in zip(self.parts, groups, strict=True)])
