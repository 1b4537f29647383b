"""What a diffusion model of images sees in each voxel of a noisy one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.networks.layers import crop_to


class FeatureLocation(NamedTuple):
    """Which activations are taken.

    Attributes:
        noise: Share of the time steps that the image is noised to, in [0, 1].
        level: Level of the decoder, 0 being the finest.
    """

    noise: float
    level: int


class VoxelFeatures:
    """Features of one image at a time: none is kept.

    Decoder activations at a few time steps and blocks, interpolated to the image's grid (Baranchuk
    et al., "Label-Efficient Semantic Segmentation with Diffusion Models", ICLR 2022, sec. 4). Each
    time step has its own noise, the same in all images of a size, as in their code, so that
    features of different images can be compared.

    Args:
        network: Network trained on images of this kind.
        locations: Locations of the activations, in the order of the features.
        seed: Seed of the noise.

    Raises:
        ValueError: without locations, or for one that the network does not have.
    """

    def __init__(
        self, network: ImageDiffusion, locations: Sequence[FeatureLocation], seed: int = 0
    ) -> None:
        self.network, self.seed = network, seed
        self.locations = tuple(FeatureLocation(*one) for one in locations)
        levels = len(network.denoiser.unet.channels)
        if not self.locations:
            raise ValueError("locations must name a noise and a level at least. Got none.")
        for noise, level in self.locations:
            if not 0.0 <= noise <= 1.0 or not 0 <= level < levels:
                rule = f"a location must have a noise in [0, 1] and a level below {levels}"
                raise ValueError(f"{rule}. Got ({noise}, {level}).")

    @property
    def channels(self) -> int:
        """C of the features."""
        widths = self.network.denoiser.unet.channels
        return sum(widths[one.level] for one in self.locations)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """Image (C', *spatial), standardised -> features (C, *spatial), on the network's device."""
        found = torch.empty(self.channels, *image.shape[1:], device=self._device)
        widths = self.network.denoiser.unet.channels
        starts = [
            sum(widths[p.level] for p in self.locations[:n]) for n in range(len(self.locations))
        ]
        for noise in sorted({location.noise for location in self.locations}):
            levels = self.decoder(image, noise)
            for start, location in zip(starts, self.locations, strict=True):
                if location.noise == noise:
                    factor = self.network.denoiser.stride * 2**location.level
                    place = slice(start, start + widths[location.level])
                    found[place] = enlarged(levels[location.level], factor, image.shape[1:])
        return found

    @torch.no_grad()
    def decoder(self, image: Tensor, noise: float) -> tuple[Tensor, ...]:
        """(C_l, *spatial_l) of all levels of the decoder, the image (C', *spatial) noised so."""
        t = torch.full((1,), round(noise * (self.network.process.n_timesteps - 1)))
        generator = torch.Generator().manual_seed(self.seed + int(t))
        eps = torch.randn(image.shape, generator=generator)[None].to(self._device)
        t = t.to(self._device)
        x_t = self.network.process.add_noise(image[None].to(self._device), eps, t)
        return tuple(one[0] for one in self.network.features(x_t, t))

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device


def enlarged(level: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """A level (C, *spatial_l), ``factor`` times as fine by interpolation, without its padding.

    Args:
        level: Features (C, *spatial_l) of a decoder's level.
        factor: Ratio of the side of its voxels to that of the image's.
        size: Spatial size of the image.
    """
    whole = level[None]
    if factor > 1:
        mode = "bilinear" if level.ndim == 3 else "trilinear"
        whole = F.interpolate(whole, scale_factor=float(factor), mode=mode, align_corners=False)
    return crop_to(whole, size)[0]
