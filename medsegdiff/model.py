"""Process, target and networks meet here, and nowhere else: the diffusion segmenter."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.prediction import mask_to_probability, x_0_from_output
from medsegdiff.diffusion.samplers import Noise, Sampler, time_grid
from medsegdiff.networks.denoiser import Denoiser
from medsegdiff.networks.encoder import Condition, ImageEncoder
from medsegdiff.types import Target


class SegmenterOutput(NamedTuple):
    """What training sees of one forward pass over B images and R noisy masks of each.

    Attributes:
        anchor: (B, K, *spatial) logits of the deterministic mask.
        prediction: (B * R, K, *spatial) of the denoiser, as its target says; a mask in [-1, 1]
            for the ``x_0`` target.
        logits: (B * R, K, *spatial) whose softmax is the predicted clean mask.
    """

    anchor: Tensor
    prediction: Tensor
    logits: Tensor


class DiffusionSegmenter(nn.Module):
    """Encodes an image once and samples as many masks of it as wanted.

    Called with an image alone it is a plain deterministic segmenter: ``network(image)`` gives the
    anchor's logits, which is what MONAI's tools expect of a network.

    Args:
        encoder: image -> condition.
        denoiser: (x_t, t, condition) -> prediction.
        process: how masks are noised.
        target: what the denoiser predicts.

    Raises:
        ValueError: if the denoiser corrects the anchor's logits but predicts something else.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        denoiser: Denoiser,
        process: GaussianProcess,
        target: Target = "x_0",
    ) -> None:
        super().__init__()
        if denoiser.add_anchor and target != "x_0":
            raise ValueError(f"add_anchor needs target 'x_0' (mask logits). Got {target!r}.")
        self.encoder, self.denoiser = encoder, denoiser
        self.process, self.target = process, target

    def encode(self, image: Tensor) -> Condition:
        """(B, C, *spatial) -> everything that depends on the image alone; once per image."""
        return self.denoiser.prepare(self.encoder(image))

    def forward(
        self, image: Tensor, x_t: Tensor | None = None, t: Tensor | None = None
    ) -> Tensor | SegmenterOutput:
        """Anchor logits of an image, or with noisy masks all that the loss needs.

        Args:
            image: (B, C, *spatial).
            x_t: (B * R, K, *spatial) noisy masks, the R draws of an image side by side.
            t: (B * R,) their integer time steps.
        """
        if x_t is None or t is None:
            return self.encoder(image).anchor
        condition = self.encode(image)
        output = self.denoiser(x_t, self._unit_time(t), condition).float()
        a, s = self.process.coefficients(t, x_t)
        x_0 = x_0_from_output(output, x_t, a, s, self.target)
        if self.target == "x_0":
            return SegmenterOutput(condition.anchor, x_0, output)
        return SegmenterOutput(condition.anchor, output, mask_to_probability(x_0).log())

    def x_0(self, x_t: Tensor, t: int, condition: Condition) -> Tensor:
        """The clean mask in [-1, 1] seen in ``x_t`` (B * N, K, *spatial) at time step ``t``."""
        a, s = self.process.coefficients(torch.tensor([t]), x_t)
        time = self._unit_time(x_t.new_full((len(x_t),), t))
        output = self.denoiser(x_t, time, condition).float()
        return x_0_from_output(output, x_t, a, s, self.target)

    def sample(
        self, condition: Condition, x_T: Tensor, noise: Noise, *, sampler: Sampler, steps: int
    ) -> Tensor:
        """Masks of an ensemble: class probabilities (B * N, K, *spatial), each in [0, 1].

        Args:
            condition: of B images, from ``encode``.
            x_T: (B * N, K, *spatial) standard normal noise, the members of an image side by side.
            noise: gives the noise that a stochastic sampler adds.
            sampler: one of ``diffusion.samplers``.
            steps: denoiser evaluations.
        """
        grid = time_grid(self.process.alphas_cumprod, steps)
        x_0 = sampler(lambda x_t, t: self.x_0(x_t, t, condition), x_T, grid, noise)
        return mask_to_probability(x_0)

    def _unit_time(self, t: Tensor) -> Tensor:
        return t.float() / (self.process.n_timesteps - 1)
