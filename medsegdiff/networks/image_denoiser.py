"""(x_t, t) -> prediction, where x_t is a noisy image: the encoder's U-Net, told the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn

from medsegdiff.networks.encoder import ImageEncoder
from medsegdiff.networks.layers import crop_to, from_patches, pad_to_multiple, to_patches


class DenoisedImage(NamedTuple):
    """One evaluation.

    Attributes:
        output: (B, out_channels, *spatial) of the target.
        features: (B, C_l, *spatial / 2^l) of the decoder at each level l, finest first, all coarser
            by the stride; sizes are those of the image padded to a multiple of 2^(levels - 1).
    """

    output: Tensor
    features: tuple[Tensor, ...]


class ImageDenoiser(nn.Module):
    """An ``ImageEncoder`` whose blocks the time, and perhaps a label, scale and shift (FiLM).

    Mean and deviation of each channel, which the U-Net's normalisation forgets, come in by FiLM
    too.

    The U-Net has the encoder's own names and sizes, so what it learns from images alone starts a
    segmenter (``networks.encoder_start``).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of what is noised and of what is given beside it.
        out_channels: channels of what is noised.
        channels: width of each level, finest first.
        depths: convolutions of a block at each level; 2, so all residual, unless told.
        num_labels: labels an image may have, such as healthy and diseased; one more, the last,
            stands for no label. 0: images have none.
        stride: side of the patches whose voxels the U-Net sees as channels, so that its finest
            level is coarser than the image: 2 takes an eighth of the time in three dimensions.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64, 128),
        depths: Sequence[int] | None = None,
        num_labels: int = 0,
        stride: int = 1,
    ) -> None:
        super().__init__()
        depths = [2] * len(channels) if depths is None else depths
        patch = stride**spatial_dims
        self.unet = ImageEncoder(
            spatial_dims, patch * in_channels, patch * out_channels, channels, depths
        )
        self.stride, self.multiple = stride, stride * self.unet.multiple
        self.time_channels = 4 * channels[0]
        self.out_channels, self.num_labels = out_channels, num_labels
        self.time = nn.Sequential(
            nn.Linear(self.time_channels, self.time_channels),
            nn.SiLU(),
            nn.Linear(self.time_channels, self.time_channels),
        )
        self.brightness = nn.Linear(2 * in_channels, self.time_channels)
        if num_labels:
            self.label = nn.Embedding(num_labels + 1, self.time_channels)
        widths = (*channels, *reversed(channels[:-1]))
        self.film = nn.ModuleList(nn.Linear(self.time_channels, 2 * width) for width in widths)
        for layer in (*self.film, self.unet.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> DenoisedImage:
        """One evaluation of the network.

        Args:
            x_t: (B, in_channels, *spatial), the noisy image and what is given beside it.
            t: (B,) or (1,) time in [0, 1].
            label: (B,) or (1,) of the images; None: of none.

        Raises:
            ValueError: a label for a network without labels.
        """
        if label is not None and not self.num_labels:
            raise ValueError("a label needs a network with num_labels of at least 1. Got 0.")
        deviation, mean = torch.std_mean(x_t.flatten(2), dim=2)
        modulations = self.modulations(t, mean, deviation, label)

        def modulate(block: int, x: Tensor) -> Tensor:
            ones = [1] * (x.ndim - 2)
            scale, shift = (part.view(len(part), -1, *ones) for part in modulations[block])
            return x * scale + shift

        found = self.unet(to_patches(pad_to_multiple(x_t, self.stride), self.stride), modulate)
        output = from_patches(found.anchor, self.stride)
        return DenoisedImage(crop_to(output, x_t.shape[2:]), found.features)

    def modulations(
        self, t: Tensor, mean: Tensor, deviation: Tensor, label: Tensor | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Scale and shift (B, C) of the channels that come out of each block.

        Args:
            t: (B,) or (1,) time in [0, 1].
            mean: (B, in_channels) of the channels.
            deviation: (B, in_channels) of the channels.
            label: (B,) or (1,) of the images; None: of none.
        """
        time = self.time(get_timestep_embedding(1000.0 * t, self.time_channels).to(mean.dtype))
        time = time + self.brightness(torch.cat([mean, deviation], dim=1))
        if self.num_labels:
            none = torch.full((1,), self.num_labels, device=mean.device)
            time = time + self.label(none if label is None else label)
        time = nn.functional.silu(time)
        both = (film(time).chunk(2, dim=1) for film in self.film)
        return [(1.0 + scale, shift) for scale, shift in both]
