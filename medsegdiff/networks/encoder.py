"""Encoder image -> condition: the large network, run once per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

from torch import Tensor, nn

from medsegdiff.networks.layers import (
    ConvBlock,
    PerAxis,
    conv,
    crop_to,
    pad_to_multiple,
    patch_up,
    per_level,
    upsample_to,
)

Modulate = Callable[[int, Tensor], Tensor]
"""Function (number of a block, its features) -> features of the same shape."""


class Condition(NamedTuple):
    """All that the denoiser needs to know of an image.

    Attributes:
        anchor: Logits (B, K, *spatial) of a deterministic mask, at the image's own size.
        features: Features (B, C_l, *spatial / s_l) of each level l, finest first, s_l being the
            product of the strides down to it; sizes are those of the padded image.
    """

    anchor: Tensor
    features: tuple[Tensor, ...]


class ImageEncoder(nn.Module):
    """Residual U-Net whose pyramid conditions the denoiser, and whose head is the anchor.

    The anchor is a deterministic mask in one pass, and has its own loss. It takes the place of
    MedSegDiff's calibration branch.

    Args:
        spatial_dims: Number of spatial axes, 2 or 3.
        in_channels: Number of channels of the image.
        num_classes: Number K of classes, background included.
        channels: Width of each level, finest first. Multiples of 16 use the whole width of a
            processor's vectors.
        depths: Number of convolutions of a block at each level, finest first; from 2 on blocks are
            residual. None: 1 at the finest level, which takes most of the time, and 2 at others.
        strides: Stride into each level, finest first, of all axes or of each; 1 along a coarse axis
            keeps its slices apart until the others have come to its spacing. Above 1 at the finest
            level, there is no level of the image's own size, which would take most of the time: the
            head brings the anchor from the finest level to it. None: 1 at the finest level, 2 at
            others.
        kernels: Size of the convolutions of each level, of all axes or of each. None: 3.

    Raises:
        ValueError: if there is not one depth, stride or kernel for each level.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        depths: Sequence[int] | None = None,
        strides: Sequence[PerAxis] | None = None,
        kernels: Sequence[PerAxis] | None = None,
    ) -> None:
        super().__init__()
        depths = (1, *[2] * (len(channels) - 1)) if depths is None else depths
        if len(depths) != len(channels):
            raise ValueError(f"depths must have {len(channels)} values. Got {list(depths)}.")
        self.channels = tuple(channels)
        self.strides = per_level(strides, 1, 2, len(channels), spatial_dims)
        kernel = per_level(kernels, 3, 3, len(channels), spatial_dims)
        self.multiple = tuple(prod(axis) for axis in zip(*self.strides, strict=True))
        inputs = (in_channels, *channels[:-1])
        self.down = nn.ModuleList(
            ConvBlock(spatial_dims, i, o, stride=self.strides[k], kernel=kernel[k], depth=depths[k])
            for k, (i, o) in enumerate(zip(inputs, channels, strict=True))
        )
        pairs = list(zip(channels[1:], channels[:-1], strict=True))
        self.lateral = nn.ModuleList(conv(spatial_dims, i, o, kernel=1) for i, o in pairs)
        self.up = nn.ModuleList(
            ConvBlock(spatial_dims, o, o, kernel=size, depth=depth)
            for (_, o), depth, size in zip(pairs, depths, kernel, strict=False)
        )
        stem = self.strides[0]
        self.head = (
            conv(spatial_dims, channels[0], num_classes, kernel=1)
            if max(stem) == 1
            else patch_up(spatial_dims, channels[0], num_classes, stem)
        )

    def forward(self, image: Tensor, modulate: Modulate | None = None) -> Condition:
        """The condition of images of any size.

        Args:
            image: Images (B, in_channels, *spatial).
            modulate: Function that changes the features (B, C, *spatial) of each block. Its first
                argument is the block's number, 0 ... 2 levels - 2, the way down first.
        """
        change = modulate or _unchanged
        x = pad_to_multiple(image, self.multiple)
        skips = []
        for block, down in enumerate(self.down):
            x = change(block, down(x))
            skips.append(x)
        features = [x]
        for block, level in enumerate(reversed(range(len(self.up))), start=len(self.down)):
            skip = skips[level]
            x = self.up[level](skip + upsample_to(self.lateral[level](x), skip.shape[2:]))
            x = change(block, x)
            features.insert(0, x)
        return Condition(crop_to(self.head(x), image.shape[2:]), tuple(features))


def _unchanged(block: int, x: Tensor) -> Tensor:
    return x
