"""Draws images, with or from masks, by a diffusion of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.networks.layers import GaussianFilter
from torch import Tensor

from medsegdiff.core.errors import UsageError
from medsegdiff.diffusion.samplers import Sampler
from medsegdiff.models.image_diffusion import ImageDiffusion, channels_of
from medsegdiff.segmentation.noise import MemberNoise, blocks_of


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        image: Image (C, *spatial) float32.
        label: Class numbers (*spatial) uint8.
    """

    image: Tensor
    label: Tensor


@dataclass(frozen=True)
class PairDrawer:
    """Draws pairs: image and mask together, or images that masks are given for.

    Args:
        network: Network with trained weights, on its device.
        num_classes: Number K of classes of the masks, background included.
        image_channels: Number C of channels of the images.
        sampler: Sampler of continuous states.
        steps: Number of steps of the time grid.
        guidance: Weight w of classifier-free guidance by the mask that is given; 1: none.
        smoothness: Standard deviation of the Gaussian that smooths drawn masks before each voxel
            takes its class, in voxels; it removes single voxels of noise along the outlines.
        seed: Seed; a pair depends on it and on the pair's own number alone.
        batch: Number of pairs drawn at once; it changes no result.
    """

    network: ImageDiffusion
    num_classes: int
    sampler: Sampler
    steps: int
    image_channels: int = 1
    guidance: float = 1.0
    smoothness: float = 0.0
    seed: int = 0
    batch: int = 4

    @property
    def given_masks(self) -> bool:
        """Whether the network draws images alone, for masks that it is given."""
        drawn = self.network.denoiser.out_channels
        if drawn == self.image_channels:
            return True
        if drawn == self.image_channels + self.num_classes:
            return False
        rule = f"draws {drawn} channels, where images have {self.image_channels} and masks "
        raise UsageError("network_def", f"{rule}{self.num_classes}", "Correct the configuration")

    def together(self, numbers: Sequence[int], size: Sequence[int]) -> list[Pair]:
        """Image and mask, both drawn, of each number.

        Args:
            numbers: Numbers of the pairs.
            size: Spatial size of the pairs, in voxels.
        """
        pairs = []
        for start in range(0, len(numbers), self.batch):
            drawn = self._draw(numbers[start : start + self.batch], size, None)
            images, masks = drawn.split([self.image_channels, self.num_classes], dim=1)
            if self.smoothness:
                masks = GaussianFilter(len(size), self.smoothness)(masks)
            labels = masks.argmax(dim=1).to(torch.uint8)
            pairs += [Pair(i, m) for i, m in zip(images, labels, strict=True)]
        return pairs

    def from_masks(self, numbers: Sequence[int], labels: Sequence[Tensor]) -> list[Pair]:
        """An image for each mask.

        Args:
            numbers: Numbers of the pairs.
            labels: Class numbers (*spatial) of each pair, all of one size.
        """
        pairs = []
        for start in range(0, len(numbers), self.batch):
            some = torch.stack([m for m in labels[start : start + self.batch]])[:, None]
            given = channels_of(("mask",), some.float(), some, self.num_classes)
            images = self._draw(numbers[start : start + self.batch], some.shape[2:], given)
            pairs += [Pair(i, m[0].to(torch.uint8)) for i, m in zip(images, some, strict=True)]
        return pairs

    @torch.no_grad()
    def _draw(self, numbers: Sequence[int], size: Sequence[int], given: Tensor | None) -> Tensor:
        device = next(self.network.parameters()).device
        window = [slice(0, n) for n in size]
        noise = MemberNoise(self.seed, "pair", numbers, window, size, blocks_of(size))
        x_T = noise.start(self.network.denoiser.out_channels).to(device)
        drawn = self.network.sample(
            x_T,
            noise,
            sampler=self.sampler,
            steps=self.steps,
            given=None if given is None else given.to(device),
            guidance=self.guidance,
        )
        return drawn.cpu()
