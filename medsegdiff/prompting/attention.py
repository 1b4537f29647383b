"""Attention of a U-Net to words, recorded while it runs.

Tang et al., "What the DAAM: Interpreting Stable Diffusion Using Cross Attention", ACL 2023.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from medsegdiff.core.errors import UsageError

CROSS = "attn2"
"""Part of the names of cross-attention layers in every ``UNet2DConditionModel``."""
LARGEST_SELF = 32 * 32
"""Greatest number of places of recorded self-attention, whose memory grows with its square."""


class AttentionRecord:
    """Sums of attention probabilities over heads, layers and calls, by resolution.

    Args:
        shape: Size (h, w) of the latents.

    Attributes:
        cross: Grid (h', w') -> sum (B, h' w', L) of the recorded cross-attention.
        own: Grid (h', w') -> sum (B, h' w', h' w') of the recorded self-attention.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.cross: dict[tuple[int, int], Tensor] = {}
        self.own: dict[tuple[int, int], Tensor] = {}
        self._counts: dict[tuple[str, tuple[int, int]], int] = {}

    def add(self, probabilities: Tensor, is_cross: bool) -> None:
        """Add the probabilities (B, places, keys) of one layer, a mean over its heads."""
        grid = _grid(self.shape, probabilities.shape[1])
        kept = self.cross if is_cross else self.own
        kept[grid] = kept[grid] + probabilities if grid in kept else probabilities
        key = ("cross" if is_cross else "own", grid)
        self._counts[key] = self._counts.get(key, 0) + 1

    def mean_cross(self) -> dict[tuple[int, int], Tensor]:
        """(h', w') -> (B, L, h', w') mean cross-attention."""
        return {
            grid: (total / self._counts["cross", grid]).transpose(1, 2).unflatten(2, grid)
            for grid, total in self.cross.items()
        }

    def mean_own(self) -> tuple[tuple[int, int], Tensor] | None:
        """The grid of the finest recorded self-attention, and its mean (B, N, N)."""
        if not self.own:
            return None
        grid = max(self.own, key=lambda size: size[0] * size[1])
        return grid, self.own[grid] / self._counts["own", grid]


class RecordingProcessor:
    """An attention processor that records the probabilities; another one computes the output.

    Args:
        inner: Processor of the layer.
        record: Record that the probabilities are added to.
        counts: Whether cross-attention is recorded; self-attention always is.
    """

    def __init__(self, inner: Any, record: AttentionRecord, counts: bool = True) -> None:
        self.inner, self.record, self.counts = inner, record, counts

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """The output of the layer, computed by ``inner``."""
        is_cross = encoder_hidden_states is not None
        if self.counts if is_cross else hidden_states.shape[1] <= LARGEST_SELF:
            keys = hidden_states if encoder_hidden_states is None else encoder_hidden_states
            self.record.add(probabilities(attn, hidden_states, keys), is_cross)
        out: Tensor = self.inner(
            attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs
        )
        return out


def probabilities(attn: Any, queries: Tensor, keys: Tensor) -> Tensor:
    """softmax(Q Kᵀ / √d) of a layer, (B, places, keys), as mean over its heads, in float32."""
    query = attn.to_q(queries).unflatten(-1, (attn.heads, -1)).transpose(1, 2).float()
    key = attn.to_k(keys).unflatten(-1, (attn.heads, -1)).transpose(1, 2).float()
    mean: Tensor = (attn.scale * query @ key.transpose(-1, -2)).softmax(dim=-1).mean(dim=1)
    return mean


@contextmanager
def recorded(unet: Any, latents: Tensor, layers: str = "") -> Iterator[AttentionRecord]:
    """Record the attention of a ``UNet2DConditionModel`` while the context lasts.

    Args:
        unet: U-Net whose processors are wrapped, and restored at the end.
        latents: Latents (B, C, h, w), used for their size.
        layers: Part of the names of the cross-attention layers to record, or several with commas
            between them; empty for all layers.

    Raises:
        UsageError: no cross-attention layer's name contains ``layers``.
    """
    before = dict(unet.attn_processors)
    height, width = latents.shape[-2:]
    record = AttentionRecord((height, width))
    crossing = [name for name in before if CROSS in name]
    counted = [name for name in crossing if any(part in name for part in layers.split(","))]
    if not counted:
        rule = f"no name of a cross-attention layer contains {layers!r}"
        raise UsageError("layers", rule, f"Choose a part of, for instance, {crossing[0]}")
    unet.set_attn_processor(
        {name: RecordingProcessor(p, record, name in counted) for name, p in before.items()}
    )
    try:
        yield record
    finally:
        unet.set_attn_processor(before)


def _grid(shape: tuple[int, int], places: int) -> tuple[int, int]:
    """Grid (h', w') with a number of places: the latents' shape, halved (rounding up) to fit."""
    height, width = shape
    while height * width > places and height * width > 1:
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    if height * width != places:
        raise ValueError(f"{places} places are no halving of {shape}.")
    return height, width
