"""(x_t, t, condition) -> prediction: the light half, which runs per step and per member."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, get_args

from monai.networks.layers.factories import Conv
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn

from medsegdiff.networks.conditioning import (
    ConcatMix,
    DynamicConditionalEncoding,
    FeatureProjection,
    SpatialFiLM,
    UncertainSpatialAttention,
    add_over_members,
    resize_like,
)
from medsegdiff.networks.cross_attention import CrossAttention
from medsegdiff.networks.encoder import Condition
from medsegdiff.networks.layers import FiLMBlock, conv, crop_to, pad_to_multiple, upsample_to
from medsegdiff.networks.transformer import SSFormer

Conditioning = Literal["medsegdiff", "concat", "cross_attention", "film"]
"""How an image's features enter the denoiser."""


class Denoiser(nn.Module):
    """Small U-Net on a patchified mask; the image comes in at each level, as ``conditioning`` says.

    The mask is folded into patches of ``patch`` voxels (the denoiser works at 1 / patch of the
    resolution, the encoder brings the detail), each level halves the size once more.

    - ``medsegdiff``: level 0 is where the anchor condition enters (U-SA), the levels between get
      the dynamic conditional encoding with its FF-Parser, and the last is the SS-Former. Each of
      these is a switch; off, the projected image features are added instead.
    - ``concat``: image features are concatenated to the mask's and mixed by a 1 x 1 convolution.
    - ``cross_attention``: tokens of the mask attend to those of the image at the last level;
      features are added at the others.
    - ``film``: maps made from the image scale and shift the normalised mask features.

    Args:
        spatial_dims: 2 or 3.
        num_classes: K, background included.
        condition_channels: width of each level of the encoder's pyramid, finest first.
        channels: width of each level of the denoiser, finest first.
        patch: 1, 2, 4 ...: side of a patch; level l uses the encoder's level l + log2(patch).
        conditioning: how the image's features come in. The next four are for ``medsegdiff``.
        anchor_attention: U-SA at level 0.
        dynamic_encoding: dynamic conditional encoding at the middle levels.
        ff_parser: FF-Parser on its path.
        ss_former: SS-Former at the last level.
        add_anchor: the output is a correction of the anchor's logits (for the ``x_0`` target).
        self_conditioning: ``x_t`` comes with K further channels, an earlier estimate of the mask.

    Raises:
        ValueError: if the encoder has too few levels for ``patch`` and ``channels``, or for an
            unknown ``conditioning``.
    """

    def __init__(
        self,
        spatial_dims: int,
        num_classes: int,
        condition_channels: Sequence[int],
        channels: Sequence[int] = (16, 32, 64),
        *,
        patch: int = 2,
        conditioning: Conditioning = "medsegdiff",
        anchor_attention: bool = True,
        dynamic_encoding: bool = True,
        ff_parser: bool = True,
        ss_former: bool = True,
        add_anchor: bool = True,
        self_conditioning: bool = False,
    ) -> None:
        super().__init__()
        first = patch.bit_length() - 1
        if patch != 2**first or first + len(channels) > len(condition_channels):
            raise ValueError(
                f"a denoiser of {len(channels)} levels on patches of {patch} voxels needs patch to "
                f"be a power of 2 and an encoder of at least {first + len(channels)} levels. "
                f"Got {len(condition_channels)}."
            )
        if conditioning not in get_args(Conditioning):
            names = list(get_args(Conditioning))
            raise ValueError(f"conditioning must be one of {names}. Got {conditioning!r}.")
        ours = conditioning == "medsegdiff"
        self.first, self.add_anchor = first, add_anchor
        self.self_conditioning = self_conditioning
        self.multiple = patch * 2 ** (len(channels) - 1)
        self.time_channels = 4 * channels[0]
        self.time = nn.Sequential(
            nn.Linear(self.time_channels, self.time_channels),
            nn.SiLU(),
            nn.Linear(self.time_channels, self.time_channels),
        )
        maps = 2 if conditioning == "film" else 1
        self.project = nn.ModuleList(
            FeatureProjection(spatial_dims, condition_channels[first + level], maps * c)
            for level, c in enumerate(channels)
        )
        self.anchor_attention = (
            UncertainSpatialAttention(spatial_dims, channels[0])
            if ours and anchor_attention
            else None
        )
        seen = 2 * num_classes if self_conditioning else num_classes
        self.stem = Conv[Conv.CONV, spatial_dims](seen, channels[0], patch, stride=patch)
        pairs = list(itertools.pairwise(channels))
        self.shrink = nn.ModuleList(conv(spatial_dims, i, o, stride=2) for i, o in pairs)
        self.down = nn.ModuleList(FiLMBlock(spatial_dims, c, self.time_channels) for c in channels)
        self.meet = nn.ModuleList(
            DynamicConditionalEncoding(spatial_dims, c, ff_parser)
            for c in (channels[1:-1] if ours and dynamic_encoding else ())
        )
        self.ss_former = SSFormer(channels[-1], self.time_channels) if ours and ss_former else None
        self.cross_attention = (
            CrossAttention(channels[-1]) if conditioning == "cross_attention" else None
        )
        self.mix = nn.ModuleList()
        if conditioning == "concat":
            self.mix.extend(ConcatMix(spatial_dims, c) for c in channels)
        elif conditioning == "film":
            self.mix.extend(SpatialFiLM(c) for c in channels)
        self.grow = nn.ModuleList(conv(spatial_dims, o, i, kernel=1) for i, o in pairs)
        self.up = nn.ModuleList(FiLMBlock(spatial_dims, i, self.time_channels) for i, _ in pairs)
        head = Conv[Conv.CONVTRANS, spatial_dims](channels[0], num_classes, patch, stride=patch)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.head = head

    def prepare(self, condition: Condition) -> Condition:
        """What of the condition the denoiser uses, projected to its own widths; once per image.

        The features become one map per level of the denoiser and, with U-SA, its attention map, or
        with cross-attention the keys and values.
        """
        projected = [
            project(condition.features[self.first + level])
            for level, project in enumerate(self.project)
        ]
        if self.anchor_attention is not None:
            projected.append(self.anchor_attention.attention(projected[0]))
        if self.cross_attention is not None:
            projected.append(self.cross_attention.keys_and_values(projected[-1]))
        return Condition(condition.anchor, tuple(projected))

    def forward(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """One evaluation of the network.

        Args:
            x_t: (B * N, K, *spatial) noisy masks, the N members of an image side by side; 2K
                channels with ``self_conditioning``.
            t: (B * N,) time, in [0, 1] of the process.
            condition: of the B images, from ``prepare``.

        Returns:
            (B * N, K, *spatial): logits of the clean mask, or eps or v, as it was trained.
        """
        levels = condition.features[: len(self.project)]
        time = self.time(get_timestep_embedding(1000.0 * t, self.time_channels).to(x_t.dtype))
        x = self.stem(pad_to_multiple(x_t, self.multiple))
        skips = []
        for level, (down, m_i) in enumerate(zip(self.down, levels, strict=True)):
            if level > 0:
                x = self.shrink[level - 1](x)
            x = self._meet(level, down(x, time), resize_like(m_i, x), time, condition)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = skips[level] + upsample_to(self.grow[level](x), skips[level].shape[2:])
            x = self.up[level](x, time)
        output = crop_to(self.head(x), x_t.shape[2:])
        return add_over_members(output, condition.anchor) if self.add_anchor else output

    def _meet(
        self, level: int, x: Tensor, m_i: Tensor, time: Tensor, condition: Condition
    ) -> Tensor:
        """Let the image's features into the mask's, by the module of this level."""
        if self.mix:
            return self.mix[level](x, m_i)
        if level == len(self.down) - 1 and self.cross_attention is not None:
            return self.cross_attention(x, condition.features[-1])
        if level == 0 and self.anchor_attention is not None:
            attention = resize_like(condition.features[-1], x)
            x = self.anchor_attention(x, attention)
        elif level == len(self.down) - 1 and self.ss_former is not None:
            return self.ss_former(x, m_i, time)
        elif 0 < level <= len(self.meet):
            return self.meet[level - 1](x, m_i)
        return add_over_members(x, m_i)
