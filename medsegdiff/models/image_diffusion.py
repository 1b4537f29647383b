"""Diffusion of images themselves: unconditional, with a label, with or beside a mask."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medsegdiff.core.types import UNKNOWN_CLASS, Precision
from medsegdiff.diffusion.affine import AffineProcess
from medsegdiff.diffusion.samplers import Noise, Sampler
from medsegdiff.models.precision import autocast
from medsegdiff.networks.image_denoiser import ImageDenoiser

Part = Literal["image", "mask"]
"""What the channels of a state, or those given beside it, are made of."""


def channels_of(
    parts: Sequence[Part], image: Tensor, mask: Tensor | None, num_classes: int
) -> Tensor | None:
    """Channels of what is noised, or of what is given: images as they are, masks in [-1, 1].

    Args:
        parts: in the channels' order.
        image: (B, C, *spatial).
        mask: (B, 1, *spatial) label map, if it is a part. A voxel of ``UNKNOWN_CLASS`` is 0 in all
            its channels, which no known one is.
        num_classes: K, background included.

    Returns:
        (B, C and/or K, *spatial); None without parts.

    Raises:
        ValueError: an unknown part, or the mask is one but is not there.
    """
    found = []
    for part in parts:
        if part not in get_args(Part):
            raise ValueError(f"a part must be one of {list(get_args(Part))}. Got {part!r}.")
        if part == "mask" and mask is None:
            raise ValueError("the part 'mask' needs a batch with label maps. Got none.")
        found.append(image if mask is None or part == "image" else _scaled(mask, num_classes))
    return torch.cat(found, dim=1) if found else None


def _scaled(mask: Tensor, num_classes: int) -> Tensor:
    """(B, 1, *spatial) label map -> (B, K, *spatial) in [-1, 1], 0 where the class is unknown."""
    unknown = mask == UNKNOWN_CLASS
    known = mask.masked_fill(unknown, 0)[:, 0].long()
    one_hot = F.one_hot(known, num_classes).movedim(-1, 1).float()
    return (2.0 * one_hot - 1.0).masked_fill(unknown, 0.0)


class ImageDiffusion(nn.Module):
    """Draws images, and finishes noisy ones. The denoiser predicts the velocity ``v``.

    ``x_0`` (B, C, *spatial) are channels of mean about 0 and deviation at most about 1: of images
    (standardised), and with them, if wanted, of masks (one-hot in [-1, 1]). Nothing is clamped,
    since images have no natural bounds.

    Args:
        denoiser: of the C channels, after which it sees those that are ``given``.
        process: how images are noised.
        precision: of the network: ``bfloat16`` where the device is made for it with ``auto``.
    """

    def __init__(
        self,
        denoiser: ImageDenoiser,
        process: AffineProcess,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.denoiser, self.process, self.precision = denoiser, process, precision

    def forward(
        self,
        x_0: Tensor,
        eps: Tensor,
        t: Tensor,
        given: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """(B, C, *spatial) predicted velocity of images noised by ``eps`` to time steps ``t`` (B,).

        Args:
            x_0: (B, C, *spatial).
            eps: standard normal noise like ``x_0``.
            t: (B,) integer time steps.
            given: (B, G, *spatial) what the denoiser sees beside them, such as a mask.
            label: (B,) whole numbers; ``num_labels`` stands for none.
        """
        return self.velocity(self.process.add_noise(x_0, eps, t), t, given, label)

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """(B, C, *spatial), what ``forward`` should give."""
        return self.process.target(x_0, eps, t, "v")

    def velocity(
        self, x_t: Tensor, t: Tensor, given: Tensor | None = None, label: Tensor | None = None
    ) -> Tensor:
        """(B, C, *spatial) velocity seen in ``x_t`` at integer time steps ``t`` (B,) or (1,)."""
        seen = x_t if given is None else torch.cat([x_t, given], dim=1)
        with self._autocast(x_t):
            return self.denoiser(seen, self._unit(t), label).output.float()

    def features(self, x_t: Tensor, t: Tensor, label: Tensor | None = None) -> tuple[Tensor, ...]:
        """(B, C_l, *spatial / 2^l) activations of the decoder's levels l, finest first."""
        with self._autocast(x_t):
            found = self.denoiser(x_t, self._unit(t), label).features
        return tuple(one.float() for one in found)

    def x_0(
        self,
        x_t: Tensor,
        t: Tensor,
        given: Tensor | None = None,
        label: Tensor | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """(B, C, *spatial) clean image seen in ``x_t`` at time steps ``t`` (B,) or (1,).

        Args:
            guidance: w of classifier-free guidance (Ho & Salimans 2022, eq. 6 with w + 1 here):
                how far towards the label, and beyond it above 1, from what no label gives; without
                a label, towards what is given, from what nothing (0 everywhere) gives.
            x_t: noisy images.
            t: their time steps.
            given: see ``forward``.
            label: see ``forward``.
        """
        v = self.velocity(x_t, t, given, label)
        if guidance != 1.0:
            if label is None and given is not None:
                given = torch.zeros_like(given)
            v = torch.lerp(self.velocity(x_t, t, given), v, guidance)
        return self.process.x_0_from_velocity(x_t, v, *self.process.coefficients(t, x_t))

    @torch.no_grad()
    def sample(
        self,
        x_T: Tensor,
        noise: Noise,
        *,
        sampler: Sampler,
        steps: int,
        start: float = 1.0,
        given: Tensor | None = None,
        label: Tensor | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """(B, C, *spatial) images.

        Args:
            x_T: (B, C, *spatial) states to start from: pure noise, or for ``start`` below 1 images
                noised to that time (``noised``).
            noise: gives further noise to a stochastic sampler.
            sampler: one of ``diffusion.samplers`` of continuous states.
            steps: of the time grid.
            start: fraction of the time steps to begin at, in (0, 1].
            given: see ``forward``.
            label: see ``forward``.
            guidance: see ``x_0``.
        """
        grid = self.process.grid(steps, start)
        at = {t: torch.full((1,), t, device=x_T.device) for t in grid.timesteps}
        return sampler(
            lambda x_t, t: self.x_0(x_t, at[t], given, label, guidance), x_T, grid, noise
        )

    def noised(self, x_0: Tensor, eps: Tensor, start: float) -> Tensor:
        """``x_0`` noised by ``eps`` to where sampling with ``start`` begins."""
        first = self.process.grid(1, start).timesteps[0]
        return self.process.add_noise(x_0, eps, torch.full((1,), first, device=x_0.device))

    def _unit(self, t: Tensor) -> Tensor:
        return t.float() / (self.process.n_timesteps - 1)

    def _autocast(self, x: Tensor) -> AbstractContextManager[None]:
        smallest = -(-min(x.shape[2:]) // self.denoiser.multiple)
        return autocast(self.precision, x.device, smallest if self.training else None)
