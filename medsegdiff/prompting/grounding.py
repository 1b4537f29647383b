"""A head that finds words in a text-to-image model's features, trained with masks of some words.

After the grounding module of Li et al., "Open-vocabulary Object Segmentation with Diffusion
Models", ICCV 2023: the head makes a word's mask from features of all levels of the U-Net and the
word's embedding. It also finds words without masks in training, through their embedding and their
cross-attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from medsegdiff.prompting.attention import recorded
from medsegdiff.prompting.maps import relative, resize, token_sums, word_maps
from medsegdiff.prompting.pipeline import Caption, TextToImage

FINER = 2
"""Factor by which a head's maps are finer than the features along each axis."""


class GroundingHead(nn.Module):
    """Features, attention and words -> a map for each word.

    Args:
        channels: Channels of each level of features, from :func:`unet_features`.
        text_dim: Dimension E of the embeddings.
        width: Number of channels of the head.
        text_dropout: Probability of leaving out an embedding in training, so that the head learns
            to work from attention alone, as for words without masks.
        absolute: Whether attention is a probability, as for ``PromptOptions.absolute``; else it is
            divided by its mean, to remove its scale.
    """

    def __init__(
        self,
        channels: Sequence[int],
        text_dim: int,
        width: int = 48,
        text_dropout: float = 0.5,
        absolute: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.text_dim = tuple(channels), text_dim
        self.text_dropout, self.absolute = text_dropout, absolute
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(8, width)) for c in channels
        )
        self.visual = _block(width, width)
        self.word = nn.Sequential(
            nn.LayerNorm(text_dim), nn.Linear(text_dim, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.decoder = nn.Sequential(
            _block(2 * width + 1, width),
            _block(width, width),
            nn.Conv2d(width, FINER**2, 1),
            nn.PixelShuffle(FINER),
        )

    def forward(self, features: Sequence[Tensor], attention: Tensor, words: Tensor) -> Tensor:
        """Find words in features.

        Args:
            features: Features (B, C_l, h_l, w_l) of each level.
            attention: Attention (B, K, h, w) to each word, on the finest grid.
            words: Embeddings (K, E) of the words.

        Returns:
            Logits (B, K, FINER · h, FINER · w).
        """
        size = attention.shape[-2:]
        summed = sum(
            resize(level(map_.float()), size)
            for level, map_ in zip(self.levels, features, strict=True)
        )
        visual = self.visual(summed)
        query = self.word(words.float())
        if self.training and self.text_dropout:
            kept = torch.rand(len(query), 1, device=query.device) >= self.text_dropout
            query = query * kept
        batch, count = attention.shape[:2]
        aligned = visual[:, None] * query[None, :, :, None, None]
        repeated = visual[:, None].expand(-1, count, -1, -1, -1)
        maps = attention.float() - 0.5 if self.absolute else weighted(attention)
        joined = torch.cat([aligned, repeated, maps[:, :, None]], dim=2)
        logits: Tensor = self.decoder(joined.flatten(0, 1))
        return logits.view(batch, count, *logits.shape[-2:])


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()
    )


def weighted(attention: Tensor) -> Tensor:
    """Attention (B, K, h, w) divided by its mean, to remove its scale; clipped to 10."""
    return relative(attention.float()).clamp_max(10.0) - 1.0


@contextmanager
def block_outputs(unet: Any) -> Iterator[list[Tensor]]:
    """Collect the outputs of a U-Net's blocks, in order, while the context lasts.

    Each run of the U-Net fills the list again: all down blocks, the middle one, all up blocks.
    """
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: Any, result: Any) -> None:
        outputs.append(result if isinstance(result, Tensor) else result[0])

    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    handles = [block.register_forward_hook(keep) for block in blocks if block is not None]
    handles.append(unet.register_forward_pre_hook(lambda *_: outputs.clear()))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def unet_features(
    model: TextToImage,
    latents: Tensor,
    noise: Tensor,
    t: int,
    caption: Caption,
    layers: str = "",
    absolute: bool = False,
) -> tuple[list[Tensor], Tensor]:
    """Run the U-Net once over latents (B, C, h, w), noised to step t, with a caption of K names.

    ``layers`` is a part of the names of the cross-attention layers to use. With ``absolute``, the
    attention to a name is the sum over its tokens instead of the mean.

    Returns:
        Features of all blocks, and attention (B, K, h, w) to the names on the finest grid.
    """
    with recorded(model.unet, latents, layers) as record, block_outputs(model.unet) as blocks:
        model.predict(model.noised(latents, noise, t), t, caption.embedding)
        maps = (token_sums if absolute else word_maps)(record, caption.places)
        return list(blocks), maps


def word_embeddings(caption: Caption) -> Tensor:
    """(K, E) the mean embedding of each name's tokens."""
    return torch.stack(
        [caption.embedding[0, list(tokens)].mean(dim=0) for tokens in caption.places]
    )
