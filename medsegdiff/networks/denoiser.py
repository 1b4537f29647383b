"""(x_t, t, condition) -> prediction: the light half, which runs per step and per member."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, get_args

import torch
import torch.nn.functional as F
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn

from medsegdiff.networks.conditioning import (
    AttentionToImage,
    ConcatMix,
    Conditioning,
    ConditioningBlock,
    DynamicConditionalEncoding,
    Prepared,
    SemanticCondition,
    SpatialFiLM,
    UncertainSpatialAttention,
    add_over_members,
)
from medsegdiff.networks.encoder import Condition
from medsegdiff.networks.layers import (
    FiLMBlock,
    conv,
    crop_to,
    pad_to,
    patch_up,
    pool,
    upsample_to,
)


class Conditioned(NamedTuple):
    """What the denoiser needs of B images, made ready once.

    Attributes:
        anchor: (B, K, *spatial) logits of the anchor at the image's size.
        coarse: (B, K, *spatial / stride) the same on the states' grid.
        levels: for each level of the denoiser, what lets the image in there.
    """

    anchor: Tensor
    coarse: Tensor
    levels: tuple[Prepared, ...]


class Denoised(NamedTuple):
    """One evaluation, on the states' grid.

    Attributes:
        output: (B * N, K, *spatial / stride) logits of the clean mask, or eps or v.
        features: (B * N, C, *spatial / stride) that ``Denoiser.refine`` makes a fine mask of.
    """

    output: Tensor
    features: Tensor


def in_cells(noise: Tensor, cells: int) -> Tensor:
    """Means of white noise over ``cells`` parts of each axis, scaled so that their variance is 1.

    (B, K, *spatial) -> (B, K, cells, ...).
    """
    means = F.adaptive_avg_pool2d if noise.ndim == 4 else F.adaptive_avg_pool3d
    pooled: Tensor = means(noise, cells)
    return pooled * math.sqrt(noise[0, 0].numel() / pooled[0, 0].numel())


class Denoiser(nn.Module):
    """Small U-Net on masks that are coarser than the image by ``stride``.

    Outlines that experts dispute differ by more than a voxel, so members are told apart on a
    coarser grid, at a fraction of the cost, and each is brought back to the image's own size once,
    as a correction of the anchor (``refine``). The image comes in at each level, as
    ``conditioning`` says:

    - ``medsegdiff``: the anchor condition (U-SA) at level 0, the dynamic conditional encoding with
      its FF-Parser between, and the SS-Former at the last. Each of these is a switch; off, the
      projected image features are added instead.
    - ``concat``: image features are concatenated to the mask's and mixed by a 1 x 1 convolution.
    - ``cross_attention``: tokens of the mask attend to those of the image at the last level;
      features are added at the others.
    - ``film``: maps made from the image scale and shift the normalised mask features.

    Args:
        spatial_dims: 2 or 3.
        num_classes: K, background included.
        condition_channels: width of each level of the encoder's pyramid, finest first.
        channels: width of each level of the denoiser, finest first; each halves the size.
        stride: 1, 2, 4 ...: the image's size over the mask's; level l meets the encoder's level
            l + log2(stride).
        conditioning: how the image's features come in. The next four are for ``medsegdiff``.
        anchor_attention: U-SA at level 0.
        dynamic_encoding: dynamic conditional encoding at the middle levels.
        ff_parser: FF-Parser on its path.
        ss_former: SS-Former at the last level.
        add_anchor: the output is a correction of the anchor's logits (for the ``x_0`` target).
        further_inputs: maps of K channels that come with ``x_t``.
        latent: cells along each axis in which the last of them, which has to be noise, is seen as
            a whole: its mean over each cell, scaled to variance 1, joins the time embedding, and
            neither it nor an ``x_t`` of pure noise is seen voxel by voxel. Members then differ by
            few numbers that each say something of the whole mask (is there a lesion, how far does
            it reach), as do raters; 0 leaves it a map.

    Raises:
        ValueError: if the encoder has too few levels for ``stride`` and ``channels``, or for an
            unknown ``conditioning``.
    """

    def __init__(
        self,
        spatial_dims: int,
        num_classes: int,
        condition_channels: Sequence[int],
        channels: Sequence[int] = (16, 32, 64),
        *,
        stride: int = 2,
        conditioning: Conditioning = "medsegdiff",
        anchor_attention: bool = True,
        dynamic_encoding: bool = True,
        ff_parser: bool = True,
        ss_former: bool = True,
        add_anchor: bool = True,
        further_inputs: int = 0,
        latent: int = 0,
    ) -> None:
        super().__init__()
        first = stride.bit_length() - 1
        if stride != 2**first or first + len(channels) > len(condition_channels):
            raise ValueError(
                f"a denoiser of {len(channels)} levels with stride {stride} needs stride to be a "
                f"power of 2 and an encoder of at least {first + len(channels)} levels. "
                f"Got {len(condition_channels)}."
            )
        if latent and not further_inputs:
            raise ValueError("latent needs further_inputs of at least 1, which is noise. Got 0.")
        if conditioning not in get_args(Conditioning):
            names = list(get_args(Conditioning))
            raise ValueError(f"conditioning must be one of {names}. Got {conditioning!r}.")
        self.first, self.stride, self.add_anchor = first, stride, add_anchor
        self.num_classes, self.further_inputs = num_classes, further_inputs
        self.time_channels = 4 * channels[0]
        self.time = _mlp(self.time_channels, self.time_channels)
        self.latent = latent
        if latent:
            self.style = _mlp(num_classes * latent**spatial_dims, self.time_channels)

        def meeting(level: int, i: int, o: int) -> ConditioningBlock:
            last = level == len(channels) - 1
            if conditioning == "concat":
                return ConcatMix(spatial_dims, i, o)
            if conditioning == "film":
                return SpatialFiLM(spatial_dims, i, o)
            if conditioning == "cross_attention" and last:
                return AttentionToImage(spatial_dims, i, o)
            if conditioning == "medsegdiff":
                if level == 0 and anchor_attention:
                    return UncertainSpatialAttention(spatial_dims, i, o)
                if last and ss_former:
                    return SemanticCondition(spatial_dims, i, o, self.time_channels)
                if level > 0 and not last and dynamic_encoding:
                    return DynamicConditionalEncoding(spatial_dims, i, o, ff_parser)
            return ConditioningBlock(spatial_dims, i, o)

        seen = (1 + further_inputs - int(latent > 0)) * num_classes
        pairs = list(pairwise(channels))
        widths = zip(condition_channels[first:], channels, strict=False)
        self.stem = conv(spatial_dims, seen, channels[0])
        self.meet = nn.ModuleList(meeting(level, i, o) for level, (i, o) in enumerate(widths))
        self.shrink = nn.ModuleList(conv(spatial_dims, i, o, stride=2) for i, o in pairs)
        self.down = nn.ModuleList(
            FiLMBlock(spatial_dims, c, self.time_channels) for c in channels[1:]
        )
        self.grow = nn.ModuleList(conv(spatial_dims, o, i, kernel=1) for i, o in pairs)
        self.up = nn.ModuleList(FiLMBlock(spatial_dims, i, self.time_channels) for i, _ in pairs)
        self.head = conv(spatial_dims, channels[0], num_classes, kernel=1)
        self.fine_head = patch_up(spatial_dims, channels[0], num_classes, stride)
        for layer in (self.head, self.fine_head):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def prepare(self, condition: Condition) -> Conditioned:
        """What of the condition the denoiser uses, in its own widths and sizes; once per image."""
        features = condition.features[self.first : self.first + len(self.meet)]
        meets: list[ConditioningBlock] = list(self.meet)  # type: ignore[arg-type]
        levels = [meet.prepare(f) for meet, f in zip(meets, features, strict=True)]
        size = [self.stride * length for length in features[0].shape[2:]]
        coarse = pool(pad_to(condition.anchor, size), self.stride)
        return Conditioned(condition.anchor, coarse, tuple(levels))

    def forward(self, x_t: Tensor, t: Tensor, condition: Conditioned) -> Denoised:
        """One evaluation of the network.

        Args:
            x_t: (B * N, K, *spatial / stride) noisy masks, the N members of an image side by side,
                with K channels more for each further input.
            t: (B * N,) time in [0, 1] of the process, or (1,) if it is the same for all.
            condition: of the B images, from ``prepare``.
        """
        time = self.time(get_timestep_embedding(1000.0 * t, self.time_channels).to(x_t.dtype))
        if self.latent:
            x_t, noise = x_t[:, : -self.num_classes], x_t[:, -self.num_classes :]
            time = time + self.style(in_cells(noise, self.latent).flatten(1))
            x_t = torch.where((t < 1.0).view(-1, *[1] * (x_t.ndim - 1)), x_t, 0.0)
        x = self.meet[0](self.stem(x_t), condition.levels[0], time)
        skips = [x]
        stages = zip(self.shrink, self.down, self.meet[1:], condition.levels[1:], strict=True)
        for shrink, down, meet, prepared in stages:
            x = meet(down(shrink(x), time), prepared, time)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = skips[level] + upsample_to(self.grow[level](x), skips[level].shape[2:])
            x = self.up[level](x, time)
        output = self.head(x)
        return Denoised(
            add_over_members(output, condition.coarse) if self.add_anchor else output, x
        )

    def refine(self, features: Tensor, condition: Conditioned) -> Tensor:
        """Logits (B * N, K, *spatial) of the fine masks that go with ``Denoised.features``."""
        correction = crop_to(self.fine_head(features), condition.anchor.shape[2:])
        return add_over_members(correction, condition.anchor)


def _mlp(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(i, o), nn.SiLU(), nn.Linear(o, o))
