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

BLOCK = 32
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


def member_noise(
    seed: int, case: str, members: Sequence[int], channels: int, window: Sequence[slice]
) -> Tensor:
    """x_T of some members in a window: (N, K, *window) float32 on the CPU."""
    fields = [noise_field((seed, case, m), channels, window) for m in members]
    return torch.stack(fields)


class StepNoise:
    """Noise of a stochastic sampler's steps: one generator a member and window.

    Args:
        seed: of the run.
        case: name of the case.
        members: indices of the members in the batch, in order.
        window: the window's place, so that windows differ.
    """

    def __init__(
        self, seed: int, case: str, members: Sequence[int], window: Sequence[slice]
    ) -> None:
        place = [s.start for s in window]
        self.generators = [generator_for(seed, case, m, "step", *place) for m in members]

    def __call__(self, x: Tensor) -> Tensor:
        """Fresh standard normal noise like ``x`` (N, K, *spatial), member by member."""
        drawn = [torch.randn(x.shape[1:], generator=g) for g in self.generators]
        return torch.stack(drawn).to(x)
