"""Encoder image -> condition: the large network, run once per image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from medsegdiff.networks.layers import ConvBlock, conv, crop_to, pad_to_multiple, upsample_to

Modulate = Callable[[int, Tensor], Tensor]
"""Function (number of a block, its features) -> features of the same shape."""


class Condition(NamedTuple):
    """All that the denoiser needs to know of an image.

    Attributes:
        anchor: Logits (B, K, *spatial) of a deterministic mask, at the image's own size.
        features: Features (B, C_l, *spatial / 2^l) of each level l, finest first; sizes are those
            of the image padded to a multiple of 2^(levels - 1).
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
        channels: Width of each level, finest first; each level halves the size. Multiples of 16 use
            the whole width of a processor's vectors.
        depths: Number of convolutions of a block at each level, finest first; from 2 on blocks are
            residual. None: 1 at the finest level, which takes most of the time, and 2 at others.

    Raises:
        ValueError: if there is not one depth for each level.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        depths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        depths = (1, *[2] * (len(channels) - 1)) if depths is None else depths
        if len(depths) != len(channels):
            raise ValueError(f"depths must have {len(channels)} values. Got {list(depths)}.")
        self.channels = tuple(channels)
        self.multiple = 2 ** (len(channels) - 1)
        inputs = (in_channels, *channels[:-1])
        self.down = nn.ModuleList(
            ConvBlock(spatial_dims, i, o, stride=1 if level == 0 else 2, depth=depths[level])
            for level, (i, o) in enumerate(zip(inputs, channels, strict=True))
        )
        pairs = list(zip(channels[1:], channels[:-1], strict=True))
        self.lateral = nn.ModuleList(conv(spatial_dims, i, o, kernel=1) for i, o in pairs)
        self.up = nn.ModuleList(
            ConvBlock(spatial_dims, o, o, depth=depth)
            for (_, o), depth in zip(pairs, depths, strict=False)
        )
        self.head = conv(spatial_dims, channels[0], num_classes, kernel=1)

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
