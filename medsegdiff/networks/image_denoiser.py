"""Denoiser of images (x_t, t) -> prediction: the encoder's U-Net, conditioned on the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn

from medsegdiff.networks.encoder import ImageEncoder
from medsegdiff.networks.layers import crop_to, from_patches, pad_to_multiple, to_patches


class DenoisedImage(NamedTuple):
    """Result of one evaluation.

    Attributes:
        output: Prediction (B, out_channels, *spatial) of the target.
        features: Features (B, C_l, *spatial / 2^l) of the decoder at each level l, finest first,
            all coarser by the stride; sizes are those of the image padded to a multiple of
            2^(levels - 1).
    """

    output: Tensor
    features: tuple[Tensor, ...]


class ImageDenoiser(nn.Module):
    """An ``ImageEncoder`` with features scaled and shifted by the time and a label (FiLM).

    Mean and deviation of each channel are removed by the U-Net's normalisation, so they enter by
    FiLM too.

    The U-Net has the encoder's own names and sizes, so what it learns from images alone starts a
    segmenter (``training.encoder_start``).

    Args:
        spatial_dims: Number of spatial axes, 2 or 3.
        in_channels: Number of channels that are noised, plus those that are given clean.
        out_channels: Number of channels that are noised.
        channels: Width of each level, finest first.
        depths: Number of convolutions of a block at each level; None: 2, so all are residual.
        num_labels: Number of labels an image may have, such as healthy and diseased; one more, the
            last, stands for no label. 0: images have none.
        stride: Side of the patches whose voxels are channels of the U-Net's input, so that its
            finest level is coarser than the image: 2 takes an eighth of the time in 3D.
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
        self.stride = stride
        self.multiple = stride * max(self.unet.multiple)
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
            x_t: Noisy image and the clean channels given beside it, (B, in_channels, *spatial).
            t: Time (B,) or (1,) in [0, 1].
            label: Label (B,) or (1,) of the images; None: no label.

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
        """Scale and shift (B, C) of the channels of each block's output.

        Args:
            t: Time (B,) or (1,) in [0, 1].
            mean: Mean (B, in_channels) of each channel.
            deviation: Standard deviation (B, in_channels) of each channel.
            label: Label (B,) or (1,) of the images; None: no label.
        """
        time = self.time(get_timestep_embedding(1000.0 * t, self.time_channels).to(mean.dtype))
        time = time + self.brightness(torch.cat([mean, deviation], dim=1))
        if self.num_labels:
            none = torch.full((1,), self.num_labels, device=mean.device)
            time = time + self.label(none if label is None else label)
        time = nn.functional.silu(time)
        both = (film(time).chunk(2, dim=1) for film in self.film)
        return [(1.0 + scale, shift) for scale, shift in both]
