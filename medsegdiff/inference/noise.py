"""Noise that depends on (seed, case, member, place) alone.

So the same seed gives the same masks whatever the batch size, the order of members or the number
of workers, and two windows that overlap see the same noise where they do.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK = 16
"""Side, in voxels, of the blocks that noise is drawn in."""


def generator_for(*key: object) -> torch.Generator:
    """A CPU generator seeded by the key's text, the same on every machine.

    Example:
        >>> a, b = generator_for(0, "case", 1), generator_for(0, "case", 1)
        >>> bool(torch.rand((), generator=a) == torch.rand((), generator=b))
        True
    """
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def noise_field(key: Sequence[object], channels: int, window: Sequence[slice]) -> Tensor:
    """Standard normal noise of an endless field, in a window of it.

    The field is drawn block by block, each from its own generator, so only the window's blocks
    are ever made.

    Args:
        key: what the field belongs to, such as (seed, case, member).
        channels: K.
        window: start and stop along each spatial axis, in voxels of the field.

    Returns:
        (K, *window) float32 on the CPU.
    """
    starts = [s.start // BLOCK for s in window]
    stops = [-(-s.stop // BLOCK) for s in window]
    blocks = [range(a, b) for a, b in zip(starts, stops, strict=True)]
    field = torch.empty(channels, *(len(b) * BLOCK for b in blocks))
    for index in itertools.product(*blocks):
        place = [
            slice((i - a) * BLOCK, (i - a + 1) * BLOCK) for i, a in zip(index, starts, strict=False)
        ]
        shape = (channels, *[BLOCK] * len(index))
        field[(slice(None), *place)] = torch.randn(shape, generator=generator_for(*key, *index))
    crop = [
        slice(s.start - a * BLOCK, s.stop - a * BLOCK) for s, a in zip(window, starts, strict=False)
    ]
    return field[(slice(None), *crop)]


class MemberNoise:
    """All noise of some members in a window: first x_T, then what a stochastic sampler adds.

    Args:
        seed: of the run.
        case: name of the case.
        members: indices of the members in the batch, in order.
        window: its place in the image, in voxels.
        mirrored: spatial axes along which the network sees the window mirrored; its noise is too.
    """

    def __init__(
        self,
        seed: int,
        case: str,
        members: Sequence[int],
        window: Sequence[slice],
        mirrored: Sequence[int] = (),
    ) -> None:
        self.keys = [(seed, case, m) for m in members]
        self.window, self.mirrored = window, [2 + axis for axis in mirrored]
        self.draws = itertools.count()

    def start(self, channels: int) -> Tensor:
        """x_T: (N, K, *window) float32 on the CPU, K = ``channels``."""
        draw = next(self.draws)
        fields = [noise_field((*key, draw), channels, self.window) for key in self.keys]
        return torch.stack(fields).flip(self.mirrored)

    def __call__(self, x: Tensor) -> Tensor:
        """Fresh standard normal noise like ``x`` (N, K, *window), member by member."""
        return self.start(x.shape[1]).to(x)
