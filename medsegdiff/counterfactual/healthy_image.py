"""Healthy counterfactuals: an image is noised partway, and denoised under the healthy class.

Wolleb et al., "Diffusion Models for Medical Anomaly Detection", MICCAI 2022 (noise by DDIM
inversion); Sanchez et al., "What is Healthy? Generative Counterfactual Diffusion for Lesion
Localization", DGM4MICCAI 2022 (classifier-free guidance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.diffusion.prediction import eps_from_x_0
from medsegdiff.diffusion.samplers import make_sampler
from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.segmentation.noise import generator_for

Encoding = Literal["inversion", "noise"]
"""Method of noising an image: deterministically, by DDIM inversion; or by draws of noise."""


@dataclass(frozen=True)
class CounterfactualMaps:
    """Maps of a healthy counterfactual.

    Attributes:
        healthy: Healthy counterfactual (C, *spatial) of the image, the mean over draws.
        difference: Distance (*spatial), at least 0, between the counterfactual and the image as the
            model reconstructs it without a class: root mean square over channels, in standard
            deviations of the image.
        variance: Variance (*spatial) of the difference over draws; 0 with a single draw.
    """

    healthy: Tensor
    difference: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Counterfactual:
    """Makes counterfactuals.

    Args:
        network: Diffusion model of images with labels, in evaluation mode, on its device.
        level: Share of the time steps that an image is noised to, in (0, 1].
        steps: Number of denoiser evaluations in each direction, noising and denoising.
        guidance: Weight w of classifier-free guidance towards the healthy class.
        encoding: Method of noising an image.
        draws: Number of draws of noise, for the encoding ``noise``.
        healthy: Label of the healthy class.
        seed: Seed; the noise depends on it, on the case and on the draw.
        least_size: Least size (*spatial). Smaller images are padded to it by repeating their edges,
            as in training; the maps still have the image's own size. Empty for no padding.
    """

    network: ImageDiffusion
    level: float = 0.5
    steps: int = 25
    guidance: float = 2.0
    encoding: Encoding = "inversion"
    draws: int = 4
    healthy: int = 0
    seed: int = 0
    least_size: Sequence[int] = ()

    @torch.no_grad()
    def __call__(self, image: Tensor, case: str) -> CounterfactualMaps:
        """Maps of a standardised image (C, *spatial); ``case`` is its name."""
        return self.several(image[None], [case])[0]

    @torch.no_grad()
    def several(self, images: Tensor, cases: Sequence[str]) -> list[CounterfactualMaps]:
        """Maps of each of several images (B, C, *spatial) of the same size."""
        images, inside = padded_to(images, self.least_size)
        differences, healthy = [], torch.zeros_like(images)
        draws = 1 if self.encoding == "inversion" else self.draws
        for draw in range(draws):
            x_t = self._encoded(images, cases, draw)
            made = self._decoded(x_t, self.healthy, self.guidance)
            seen = self._decoded(x_t, None, 1.0)
            differences.append((made - seen).square().mean(dim=1).sqrt())
            healthy += made / draws
        over_draws = torch.stack(differences)
        difference, variance = over_draws.mean(dim=0), over_draws.var(dim=0, correction=0)
        place: Any = (..., *inside)
        maps = (one[place] for one in (healthy, difference, variance))
        found = zip(*maps, strict=True)
        return [CounterfactualMaps(*maps) for maps in found]

    def _encoded(self, images: Tensor, cases: Sequence[str], draw: int) -> Tensor:
        if self.encoding == "inversion":
            return inverted(self.network, images, self.steps, self.level)
        eps = torch.stack(
            [
                torch.randn(images.shape[1:], generator=generator_for(self.seed, case, draw))
                for case in cases
            ]
        )
        return self.network.noised(images, eps.to(images), self.level)

    def _decoded(self, x_t: Tensor, label: int | None, guidance: float) -> Tensor:
        told = None if label is None else torch.full((1,), label, device=x_t.device)
        return self.network.sample(
            x_t,
            torch.randn_like,
            sampler=make_sampler("ddim", eta=0.0),
            steps=self.steps,
            start=self.level,
            label=told,
            guidance=guidance,
        )


def padded_to(images: Tensor, size: Sequence[int]) -> tuple[Tensor, tuple[slice, ...]]:
    """Pad images (B, C, *spatial) by their edges to at least a size; also give their place in it.

    >>> padded_to(torch.zeros(1, 1, 5, 3), (4, 6))[1]
    (slice(0, 5, None), slice(1, 4, None))
    """
    shape = images.shape[2:]
    missing = [max(n - have, 0) for n, have in zip(size or shape, shape, strict=True)]
    before = [m // 2 for m in missing]
    ends = zip(reversed(before), reversed(missing), strict=True)
    pads = [n for first, m in ends for n in (first, m - first)]
    inside = tuple(slice(first, first + n) for first, n in zip(before, shape, strict=True))
    return F.pad(images, pads, mode="replicate"), inside


@torch.no_grad()
def inverted(network: ImageDiffusion, images: Tensor, steps: int, level: float) -> Tensor:
    """The state from which DDIM leads to these images: DDIM inversion without a label.

    Song et al. 2021, section 4.3: eq. 13 with time reversed. Each step to a noisier state uses the
    noise that the network predicts in the cleaner state at the noisier state's time.

    Args:
        network: Diffusion model of images.
        images: Images (B, C, *spatial).
        steps: Number of steps.
        level: Share of the time steps to end at, in (0, 1].
    """
    grid = network.process.grid(steps, level)
    x, now_a, now_s = images, 1.0, 0.0
    way = list(zip(grid.timesteps, grid.levels, strict=True))
    for t, there in reversed(way):
        at = torch.full((1,), t, device=x.device)
        x_0 = network.x_0(x, at)
        # At the time of x itself the noise would be undefined for the clean image.
        eps = eps_from_x_0(x, x_0, there.a, there.s)
        clean = x if now_s == 0.0 else (x - now_s * eps) / now_a
        x = there.a * clean + there.s * eps
        now_a, now_s = there
    return x
