"""Diffusion of images: unconditional, with a label, jointly with a mask or given a mask."""

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
"""Content of the channels of a state, or of the channels given in addition."""


def channels_of(
    parts: Sequence[Part], image: Tensor, mask: Tensor | None, num_classes: int
) -> Tensor | None:
    """The channels to noise, or the given ones: images unchanged, masks one-hot in [-1, 1].

    Args:
        parts: Parts in the order of the channels.
        image: Images (B, C, *spatial).
        mask: Label maps (B, 1, *spatial), if masks are a part. A voxel of ``UNKNOWN_CLASS`` is 0 in
            all channels, unlike any known class.
        num_classes: Number K of classes, background included.

    Returns:
        (B, C and/or K, *spatial); None without parts.

    Raises:
        ValueError: a part is unknown, or the mask is a part but is missing.
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
    """Draws images, and denoises noisy ones. The denoiser predicts the velocity ``v``.

    The channels of ``x_0`` (B, C, *spatial) have a mean of about 0 and a standard deviation of at
    most about 1: those of standardised images and, optionally, of one-hot masks in [-1, 1]. No
    value is clamped, since images have no natural bounds.

    Args:
        denoiser: Network whose input is the C channels, followed by the ``given`` ones.
        process: Diffusion process that noises the images.
        precision: Precision of the network; ``auto`` chooses ``bfloat16`` on devices that compute
            faster in it.
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
            x_0: Clean images (B, C, *spatial).
            eps: Standard normal noise of the shape of ``x_0``.
            t: Integer time steps (B,).
            given: Further input (B, G, *spatial) of the denoiser, such as a mask.
            label: Labels (B,), whole numbers; ``num_labels`` stands for no label.
        """
        return self.velocity(self.process.add_noise(x_0, eps, t), t, given, label)

    def target(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """(B, C, *spatial) velocity that ``forward`` should predict."""
        return self.process.target(x_0, eps, t, "v")

    def velocity(
        self, x_t: Tensor, t: Tensor, given: Tensor | None = None, label: Tensor | None = None
    ) -> Tensor:
        """(B, C, *spatial) velocity predicted from ``x_t`` at integer times ``t`` (B,) or (1,)."""
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
        """(B, C, *spatial) clean images predicted from ``x_t`` at time steps ``t`` (B,) or (1,).

        Args:
            guidance: Weight w of classifier-free guidance (Ho & Salimans 2022, eq. 6 with w + 1
                here): 0 gives the prediction without a label, 1 the one with it, and larger values
                go beyond it. Without a label, the guidance is by ``given``, against an input of 0
                everywhere.
            x_t: Noisy images.
            t: Time steps of the noisy images.
            given: Further input, see ``forward``.
            label: Labels, see ``forward``.
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
        """(B, C, *spatial) sampled images.

        Args:
            x_T: Start states (B, C, *spatial): pure noise, or for ``start`` below 1 images noised
                to that time (``noised``).
            noise: Function that draws further noise for a stochastic sampler.
            sampler: Sampler of continuous states from ``diffusion.samplers``.
            steps: Number of steps of the time grid.
            start: Fraction of the time steps to begin at, in (0, 1].
            given: Further input, see ``forward``.
            label: Labels, see ``forward``.
            guidance: Weight of the guidance, see ``x_0``.
        """
        grid = self.process.grid(steps, start)
        at = {t: torch.full((1,), t, device=x_T.device) for t in grid.timesteps}
        return sampler(
            lambda x_t, t: self.x_0(x_t, at[t], given, label, guidance), x_T, grid, noise
        )

    def noised(self, x_0: Tensor, eps: Tensor, start: float) -> Tensor:
        """``x_0`` noised by ``eps`` to the time at which sampling with ``start`` begins."""
        first = self.process.grid(1, start).timesteps[0]
        return self.process.add_noise(x_0, eps, torch.full((1,), first, device=x_0.device))

    def _unit(self, t: Tensor) -> Tensor:
        return t.float() / (self.process.n_timesteps - 1)

    def _autocast(self, x: Tensor) -> AbstractContextManager[None]:
        smallest = -(-min(x.shape[2:]) // self.denoiser.multiple)
        return autocast(self.precision, x.device, smallest if self.training else None)
