"""Process, target and networks meet here, and nowhere else: the diffusion segmenter."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from medsegdiff.diffusion.prediction import anchor_mask, mask_to_probability
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.samplers import Noise, Sampler
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
        self_conditioning: probability that a training step lets the denoiser see its own first
            estimate of the mask (Chen et al. 2023, "Analog bits", sec. 3.2); sampling always does.
            Above 0 the denoiser needs its ``self_conditioning``.
        recycling: training noises the model's own masks, drawn in one step from pure noise,
            instead of the readers' (Fu et al. 2023): what the denoiser meets in sampling.

    Raises:
        ValueError: for arguments that do not go together: the process has no such target; the
            denoiser corrects the anchor's logits but predicts something else; only one of model
            and denoiser is made for self-conditioning; recycling with another target than x_0.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        denoiser: Denoiser,
        process: Process,
        target: Target = "x_0",
        self_conditioning: float = 0.0,
        recycling: bool = False,
    ) -> None:
        super().__init__()
        if target not in process.targets:
            raise ValueError(f"target must be one of {process.targets} here. Got {target!r}.")
        if denoiser.add_anchor and target != "x_0":
            raise ValueError(f"add_anchor needs target 'x_0' (mask logits). Got {target!r}.")
        if (self_conditioning > 0.0) != denoiser.self_conditioning:
            raise ValueError(
                f"self_conditioning {self_conditioning} needs a denoiser with self_conditioning "
                f"{self_conditioning > 0.0}. Got {denoiser.self_conditioning}."
            )
        if recycling and target != "x_0":  # the noise between a recycled mask and x_t is not eps
            raise ValueError(f"recycling needs target 'x_0'. Got {target!r}.")
        self.self_conditioning, self.recycling = self_conditioning, recycling
        self.encoder, self.denoiser = encoder, denoiser
        self.process, self.target = process, target

    def encode(self, image: Tensor) -> Condition:
        """(B, C, *spatial) -> everything that depends on the image alone; once per image."""
        return self.denoiser.prepare(self.encoder(image))

    def forward(
        self,
        image: Tensor,
        x_0: Tensor | None = None,
        eps: Tensor | None = None,
        t: Tensor | None = None,
    ) -> Tensor | SegmenterOutput:
        """Anchor logits of an image, or with masks to be noised all that the loss needs.

        Args:
            image: (B, C, *spatial).
            x_0: (B * R, K, *spatial) clean masks in [-1, 1], the R draws of an image side by side.
            eps: standard normal noise like ``x_0``.
            t: (B * R,) the integer time steps to noise them to.
        """
        if x_0 is None or eps is None or t is None:
            return self.encoder(image).anchor
        condition = self.encode(image)
        if self.training and self.recycling:
            x_0 = self._recycled(eps, condition)
        x_t = self.process.add_noise(x_0, eps, t)
        previous = self._first_estimate(x_t, t, condition) if self.training else None
        output = self._denoise(x_t, t, condition, previous)
        seen = self.process.x_0_from_output(output, x_t, t, self.target)
        if self.target == "x_0":
            return SegmenterOutput(condition.anchor, seen, output)
        return SegmenterOutput(condition.anchor, output, mask_to_probability(seen).log())

    def x_0(
        self, x_t: Tensor, t: int, condition: Condition, previous: Tensor | None = None
    ) -> Tensor:
        """The clean mask in [-1, 1] seen in ``x_t`` (B * N, K, *spatial) at time step ``t``.

        With self-conditioning, ``previous`` is an earlier estimate of it, if there is one.
        """
        step = torch.tensor([t])  # on the CPU, where the process has its levels
        output = self._denoise(x_t, step, condition, previous)
        return self.process.x_0_from_output(output, x_t, step, self.target)

    def sample(
        self,
        condition: Condition,
        x_T: Tensor,
        noise: Noise,
        *,
        sampler: Sampler,
        steps: int,
        start: float = 1.0,
    ) -> Tensor:
        """Masks of an ensemble: class probabilities (B * N, K, *spatial), each in [0, 1].

        Args:
            condition: of B images, from ``encode``.
            x_T: (B * N, K, *spatial) standard normal noise, the members of an image side by side.
            noise: gives the noise that a stochastic sampler adds.
            sampler: one of ``diffusion.samplers``.
            steps: of the time grid.
            start: fraction of the time steps to begin at, in (0, 1]. Below 1, sampling begins with
                the anchor's mask noised to there, instead of pure noise.

        Raises:
            ValueError: if the sampler does not suit the process, or there are not so many steps.
        """
        grid = self.process.grid(steps, start)
        if start < 1.0:
            mask, step = anchor_mask(condition.anchor, x_T), torch.tensor(grid.timesteps[:1])
            first = self.process.add_noise(mask, x_T, step)
        else:
            first = self.process.start(x_T)
        previous: Tensor | None = None

        def denoise(x_t: Tensor, t: int) -> Tensor:
            nonlocal previous
            previous = self.x_0(x_t, t, condition, previous)
            return previous

        return mask_to_probability(sampler(denoise, first, grid, noise))

    def _denoise(
        self, x_t: Tensor, t: Tensor, condition: Condition, previous: Tensor | None = None
    ) -> Tensor:
        """The denoiser's output (B * N, K, *spatial) in float32, at time steps (B * N,) or (1,)."""
        x = self.process.network_input(x_t, t, condition.anchor)
        if self.denoiser.self_conditioning:
            x = torch.cat([x, torch.zeros_like(x) if previous is None else previous.to(x)], dim=1)
        unit_time = t.to(x_t.device).float() / (self.process.n_timesteps - 1)
        return self.denoiser(x, unit_time.expand(len(x_t)), condition).float()

    @torch.no_grad()
    def _recycled(self, eps: Tensor, condition: Condition) -> Tensor:
        """Masks in [-1, 1] predicted from pure noise; only the shape of ``eps`` matters."""
        x_T = self.process.start(torch.randn_like(eps))
        return self.x_0(x_T, self.process.n_timesteps - 1, condition)

    @torch.no_grad()
    def _first_estimate(self, x_t: Tensor, t: Tensor, condition: Condition) -> Tensor | None:
        """The mask that the denoiser sees without one; with the self-conditioning's probability."""
        if self.self_conditioning == 0.0 or float(torch.rand(())) >= self.self_conditioning:
            return None
        output = self._denoise(x_t, t, condition)
        return self.process.x_0_from_output(output, x_t, t, self.target)
