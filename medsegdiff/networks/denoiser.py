"""Denoiser (x_t, t, condition) -> prediction: the small network, run per step and per member."""

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
    PerAxis,
    conv,
    crop_to,
    pad_to,
    patch_up,
    per_axis,
    per_level,
    pool,
    upsample_to,
)


class Conditioned(NamedTuple):
    """All tensors that the denoiser needs of B images, computed once.

    Attributes:
        anchor: Logits (B, K, *spatial) of the anchor at the image's size.
        coarse: Logits (B, K, *spatial / stride) of the anchor on the states' grid.
        levels: Tensors of the image that the conditioning block of each level needs.
    """

    anchor: Tensor
    coarse: Tensor
    levels: tuple[Prepared, ...]


class Denoised(NamedTuple):
    """Result of one evaluation, on the states' grid.

    Attributes:
        output: Output (B * N, K, *spatial / stride): logits of the clean mask, or eps or v.
        features: Features (B * N, C, *spatial / stride), the input of ``Denoiser.refine``.
    """

    output: Tensor
    features: Tensor


def in_cells(noise: Tensor, cells: int) -> Tensor:
    """Means of white noise over ``cells`` parts of each axis, scaled to variance 1.

    Args:
        noise: Standard normal noise (B, K, *spatial).
        cells: Number of parts of each axis.

    Returns:
        Means (B, K, cells, ...), with one axis of ``cells`` for each spatial axis.
    """
    means = F.adaptive_avg_pool2d if noise.ndim == 4 else F.adaptive_avg_pool3d
    pooled: Tensor = means(noise, cells)
    sides = [max(length, cells) for length in noise.shape[2:]]  # a shorter axis is repeated
    return pooled * math.sqrt(math.prod(sides) / pooled[0, 0].numel())


class Denoiser(nn.Module):
    """Small U-Net on masks that are coarser than the image by ``stride``.

    Outlines of different raters differ by more than a voxel, so members are sampled on a coarser
    grid, at a fraction of the cost. Each is brought back to the image's own size once, as a
    correction of the anchor (``refine``). The image's features enter at each level, by the chosen
    ``conditioning``:

    - ``medsegdiff``: the anchor condition (U-SA) at level 0, the dynamic conditional encoding with
      its FF-Parser between, and the SS-Former at the last. Each can be switched off; then the
      projected image features are added instead.
    - ``concat``: image features are concatenated to the mask's and mixed by a 1 x 1 convolution.
    - ``cross_attention``: tokens of the mask attend to those of the image at the last level;
      features are added at the others.
    - ``film``: maps made from the image scale and shift the normalised mask features.

    Args:
        spatial_dims: Number of spatial axes, 2 or 3.
        num_classes: Number K of classes, background included.
        condition_channels: Width of each level of the encoder's pyramid, finest first.
        channels: Width of each level of the denoiser, finest first; each level halves the size.
        stride: Ratio of the image's size to the mask's, along all axes or along each; level l of
            the denoiser takes the features of the encoder's level f + l, f being the level at which
            the encoder has come to that stride.
        strides: Strides into the encoder's levels, as ``ImageEncoder`` has them. None: 2.
        kernels: Size of the convolutions at the encoder's levels, as ``ImageEncoder`` has them.
            None: 3.
        conditioning: Way in which the image's features enter. The next four arguments are for
            ``medsegdiff``.
        anchor_attention: Whether level 0 has the anchor condition (U-SA).
        dynamic_encoding: Whether the middle levels have the dynamic conditional encoding.
        ff_parser: Whether the dynamic conditional encoding has an FF-Parser.
        ss_former: Whether the last level has the SS-Former.
        add_anchor: Whether the output is a correction of the anchor's logits (for ``x_0``).
        further_inputs: Number of further inputs of K channels that come with ``x_t``.
        latent: Number of cells along each axis into which the last further input, which has to be
            noise, is averaged; 0: it stays a map. The means, scaled to variance 1, join the time
            embedding; neither that noise nor an ``x_t`` of pure noise is then seen voxel by voxel.
            So members differ by a few numbers, each of which concerns the whole mask, such as
            whether there is a lesion and how large it is; raters differ alike.

    Raises:
        ValueError: if the encoder does not come to ``stride``, or has too few levels below it for
            ``channels``, or for an unknown ``conditioning``.
    """

    def __init__(
        self,
        spatial_dims: int,
        num_classes: int,
        condition_channels: Sequence[int],
        channels: Sequence[int] = (16, 32, 64),
        *,
        stride: PerAxis = 2,
        strides: Sequence[PerAxis] | None = None,
        kernels: Sequence[PerAxis] | None = None,
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
        depth, levels = len(channels), len(condition_channels)
        steps = per_level(strides, 1, 2, levels, spatial_dims)
        sizes = per_level(kernels, 3, 3, levels, spatial_dims)
        self.stride = per_axis(stride, spatial_dims)
        first = _level_of(self.stride, steps)
        if first is None or first + depth > levels:
            raise ValueError(
                f"a denoiser of {depth} levels with stride {stride} needs an encoder that comes to "
                f"that stride, and has at least {depth} levels from there. Got {levels} levels "
                f"with strides {steps}."
            )
        steps, sizes = steps[first:], sizes[first:]
        if latent and not further_inputs:
            raise ValueError("latent needs further_inputs of at least 1, which is noise. Got 0.")
        if conditioning not in get_args(Conditioning):
            names = list(get_args(Conditioning))
            raise ValueError(f"conditioning must be one of {names}. Got {conditioning!r}.")
        self.first, self.add_anchor = first, add_anchor
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
        self.stem = conv(spatial_dims, seen, channels[0], sizes[0])
        self.meet = nn.ModuleList(meeting(level, i, o) for level, (i, o) in enumerate(widths))
        below = list(zip(pairs, sizes[1:], steps[1:], strict=False))
        self.shrink = nn.ModuleList(conv(spatial_dims, *pair, k, s) for pair, k, s in below)
        self.down = nn.ModuleList(
            FiLMBlock(spatial_dims, o, self.time_channels, k) for (_, o), k, _ in below
        )
        self.grow = nn.ModuleList(conv(spatial_dims, o, i, kernel=1) for i, o in pairs)
        self.up = nn.ModuleList(
            FiLMBlock(spatial_dims, i, self.time_channels, k)
            for (i, _), k in zip(pairs, sizes, strict=False)
        )
        self.head = conv(spatial_dims, channels[0], num_classes, kernel=1)
        self.fine_head = patch_up(spatial_dims, channels[0], num_classes, self.stride)
        for layer in (self.head, self.fine_head):
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def prepare(self, condition: Condition) -> Conditioned:
        """The condition in the denoiser's own widths and sizes; computed once per image."""
        features = condition.features[self.first : self.first + len(self.meet)]
        meets: list[ConditioningBlock] = list(self.meet)  # type: ignore[arg-type]
        levels = [meet.prepare(f) for meet, f in zip(meets, features, strict=True)]
        size = [s * n for s, n in zip(self.stride, features[0].shape[2:], strict=True)]
        coarse = pool(pad_to(condition.anchor, size), self.stride)
        return Conditioned(condition.anchor, coarse, tuple(levels))

    def forward(self, x_t: Tensor, t: Tensor, condition: Conditioned) -> Denoised:
        """One evaluation of the network.

        Args:
            x_t: Noisy masks (B * N, K, *spatial / stride), the N members of an image side by side,
                with K channels more for each further input.
            t: Time (B * N,) of the process in [0, 1], or (1,) if it is the same for all.
            condition: Condition of the B images, from ``prepare``.
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
        """Logits (B * N, K, *spatial) of fine masks, from features as in ``Denoised.features``."""
        correction = crop_to(self.fine_head(features), condition.anchor.shape[2:])
        return add_over_members(correction, condition.anchor)


def _level_of(stride: Sequence[int], strides: Sequence[Sequence[int]]) -> int | None:
    """The first level at which the strides into the levels have come to ``stride``."""
    reached = [1] * len(stride)
    for level, step in enumerate(strides):
        reached = [r * s for r, s in zip(reached, step, strict=True)]
        if reached == list(stride):
            return level
    return None


def _mlp(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(i, o), nn.SiLU(), nn.Linear(o, o))
