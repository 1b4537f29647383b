"""What a diffusion model of images sees in each voxel of a noised one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.image_model import ImageDiffusion
from medsegdiff.networks.layers import crop_to


class Pick(NamedTuple):
    """Which activations are taken.

    Attributes:
        noise: share of the forward process that the image is noised to, in (0, 1).
        level: of the decoder, 0 being the finest.
    """

    noise: float
    level: int


class VoxelFeatures:
    """Features of an image, of one image at a time: none is kept.

    Baranchuk et al. 2022, section 3: decoder activations at a few time steps and blocks,
    interpolated to the image's grid. Each noise level has one noise, the same for all images, as
    in their code, so that features of different images can be compared.

    Args:
        network: trained on images of this kind.
        picks: which activations.
        seed: of the noise.
    """

    def __init__(self, network: ImageDiffusion, picks: Sequence[Pick], seed: int = 0) -> None:
        self.network, self.picks, self.seed = network, tuple(Pick(*pick) for pick in picks), seed

    @property
    def channels(self) -> int:
        """C of the features."""
        widths = self.network.denoiser.unet.channels
        return sum(widths[pick.level] for pick in self.picks)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        """Image (C', *spatial), standardised -> features (C, *spatial)."""
        found = [torch.empty(0)] * len(self.picks)
        for noise in sorted({pick.noise for pick in self.picks}):
            levels = self.decoder(image, noise)
            for place, pick in enumerate(self.picks):
                if pick.noise == noise:
                    factor = self.network.denoiser.stride * 2**pick.level
                    found[place] = enlarged(levels[pick.level], factor, image.shape[1:])
        return torch.cat(found)

    @torch.no_grad()
    def decoder(self, image: Tensor, noise: float) -> tuple[Tensor, ...]:
        """(C_l, *spatial_l) of all levels of the decoder at one noise level."""
        last = self.network.process.n_timesteps - 1
        t = torch.full((1,), min(last, max(0, round(noise * last))), device=image.device)
        generator = torch.Generator().manual_seed(self.seed + int(t))
        eps = torch.randn(image.shape, generator=generator).to(image)
        x_t = self.network.process.add_noise(image[None], eps[None], t)
        return tuple(one[0] for one in self.network.features(x_t, t))


def enlarged(level: Tensor, factor: int, size: Sequence[int]) -> Tensor:
    """A level (C, *spatial_l) times ``factor`` on the image's grid, interpolated; padding goes."""
    whole = level[None]
    if factor > 1:
        mode = "bilinear" if level.ndim == 3 else "trilinear"
        whole = F.interpolate(whole, scale_factor=float(factor), mode=mode)
    return crop_to(whole, size)[0]
