"""The diffusion segmenter, the only place that combines process, target and networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from medsegdiff.core.types import Precision, Target
from medsegdiff.diffusion.prediction import anchor_mask
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.samplers import Noise, Sampler
from medsegdiff.models.precision import autocast
from medsegdiff.networks.denoiser import Conditioned, Denoised, Denoiser
from medsegdiff.networks.encoder import ImageEncoder
from medsegdiff.networks.layers import pad_to, pool


class SegmenterOutput(NamedTuple):
    """Output of one forward pass in training: B images, R noisy masks of each, G samples.

    Attributes:
        anchor: Logits (B, K, *spatial) of the deterministic mask.
        prediction: Prediction (B * R * G, K, *state) of the denoiser's target; for the ``x_0``
            target a mask in [-1, 1].
        logits: Logits (B * R * G, K, *spatial) of the predicted clean mask.
    """

    anchor: Tensor
    prediction: Tensor
    logits: Tensor


class DiffusionSegmenter(nn.Module):
    """Encodes an image once and samples any number of masks of it.

    Masks are noised and denoised on a grid that is coarser than the image by the denoiser's
    stride, and are brought to the image's own size at the end. Called with an image alone, it is a
    deterministic segmenter: ``network(image)`` gives the anchor's logits, as MONAI's tools expect
    of a network.

    Args:
        encoder: Network from an image to its condition.
        denoiser: Network from (x_t, t, condition) to the prediction.
        process: Diffusion process that noises the masks.
        target: Target that the denoiser predicts.
        self_conditioning: Probability that the denoiser gets its own first estimate of the mask in
            a training step (Chen et al. 2023, "Analog bits", sec. 3.2); in sampling it always does.
        recycling: Whether training noises the model's own masks, drawn in one step from pure noise,
            instead of the raters' masks (Fu et al. 2023); the denoiser's input is then as in
            sampling.
        precision: Precision of the networks; ``auto`` chooses ``bfloat16`` on devices that compute
            faster in it.
        samples_per_target: Number G of samples. Above 1 the denoiser is distributional (De Bortoli
            et al. 2025): it gets noise of its own, and its output is a draw from p(x_0 | x_t)
            instead of the mean, so that members differ after few steps. Training compares G outputs
            with each noisy mask's target by the loss's energy score.

    Self-conditioning and several samples per target each need one of the denoiser's
    ``further_inputs``.

    Raises:
        ValueError: arguments contradict each other: the process has no such target; the
            denoiser corrects the anchor's logits but does not predict x_0; it does not have the
            further inputs that it would get; or recycling or several samples per target are
            combined with another target than x_0.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        denoiser: Denoiser,
        process: Process,
        target: Target = "x_0",
        self_conditioning: float = 0.0,
        recycling: bool = False,
        samples_per_target: int = 1,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        if target not in process.targets:
            raise ValueError(f"target must be one of {process.targets} here. Got {target!r}.")
        if denoiser.add_anchor and target != "x_0":
            raise ValueError(f"add_anchor needs target 'x_0' (mask logits). Got {target!r}.")
        further = int(self_conditioning > 0.0) + int(samples_per_target > 1)
        if further != denoiser.further_inputs:
            raise ValueError(
                f"self_conditioning {self_conditioning} and samples_per_target "
                f"{samples_per_target} need a denoiser with further_inputs {further}. "
                f"Got {denoiser.further_inputs}."
            )
        if recycling and target != "x_0":  # the noise from a recycled mask to x_t is not eps
            raise ValueError(f"recycling needs target 'x_0'. Got {target!r}.")
        if samples_per_target > 1 and target != "x_0":
            raise ValueError(f"samples_per_target above 1 needs target 'x_0'. Got {target!r}.")
        self.self_conditioning, self.recycling = self_conditioning, recycling
        self.samples_per_target, self.precision = samples_per_target, precision
        self.encoder, self.denoiser = encoder, denoiser
        self.process, self.target = process, target
        self.noise_like: Noise = torch.randn_like  # in training; several processes share it out

    @property
    def num_classes(self) -> int:
        """Number K of classes, background included."""
        return self.denoiser.num_classes

    @property
    def stride(self) -> tuple[int, ...]:
        """Ratio of the image's size to that of the states, along each axis."""
        return self.denoiser.stride

    def padded(self, size: Sequence[int]) -> list[int]:
        """Spatial size of an image after padding for the networks."""
        multiples = map(max, self.encoder.multiple, self.stride)
        return [length + -length % m for length, m in zip(size, multiples, strict=True)]

    def state_size(self, size: Sequence[int]) -> list[int]:
        """Spatial size of the states x_t of an image of ``size``."""
        return [n // s for n, s in zip(self.padded(size), self.stride, strict=True)]

    def to_state(self, mask: Tensor) -> Tensor:
        """x_0 of masks (B, K, *spatial): padded, and averaged over each voxel of the state."""
        return pool(pad_to(mask, self.padded(mask.shape[2:])), self.stride)

    def encode(self, image: Tensor) -> Conditioned:
        """Condition of images (B, C, *spatial): all that depends on the image, computed once."""
        with self._autocast(image.device, self.padded(image.shape[2:])):
            return self.denoiser.prepare(self.encoder(image))

    def forward(
        self,
        image: Tensor,
        x_0: Tensor | None = None,
        eps: Tensor | None = None,
        t: Tensor | None = None,
    ) -> Tensor | SegmenterOutput:
        """The anchor's logits of an image; with masks to noise, the outputs that the loss needs.

        Args:
            image: Images (B, C, *spatial).
            x_0: Clean masks (B * R, K, *state) in [-1, 1] from ``to_state``, the R draws of an
                image side by side.
            eps: Standard normal noise of the shape of ``x_0``.
            t: Integer time steps (B * R,) to noise the masks to.
        """
        if x_0 is None or eps is None or t is None:
            return self.encode(image).anchor.float()
        condition = self.encode(image)
        if self.training and self.recycling:
            x_0 = self._recycled(eps, condition)
        x_t = self.process.add_noise(x_0, eps, t)
        if self.samples_per_target > 1:
            x_t, t = (x.repeat_interleave(self.samples_per_target, dim=0) for x in (x_t, t))
        previous = self._first_estimate(x_t, t, condition) if self.training else None
        denoised = self._denoise(x_t, t, condition, self.noise_like, previous)
        logits = self._refine(denoised.features, condition)
        prediction = denoised.output
        if self.target == "x_0":
            prediction = self.process.x_0_from_output(prediction, x_t, t, self.target)
        return SegmenterOutput(condition.anchor.float(), prediction, logits)

    def x_0(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: Conditioned,
        noise: Noise = torch.randn_like,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The clean mask in [-1, 1] predicted from ``x_t`` (B * N, K, *state), and its features.

        ``t`` (1,) is the time step of ``x_t``.

        With self-conditioning, ``previous`` is an earlier estimate of the mask, if there is one. A
        distributional denoiser draws its noise from ``noise``.
        """
        denoised = self._denoise(x_t, t, condition, noise, previous)
        mask = self.process.x_0_from_output(denoised.output, x_t, t, self.target)
        return mask, denoised.features

    def sample(
        self,
        condition: Conditioned,
        x_T: Tensor,
        noise: Noise,
        *,
        sampler: Sampler,
        steps: int,
        start: float = 1.0,
        watch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Masks of an ensemble: class probabilities (B * N, K, *spatial), each in [0, 1].

        Args:
            condition: Condition of B images, from ``encode``.
            x_T: Standard normal noise (B * N, K, *state), the members of an image side by side.
            noise: Function that draws further noise for a stochastic sampler and a distributional
                denoiser.
            sampler: Sampler from ``diffusion.samplers`` or a similar one. It must return the
                estimate that its last call of ``denoise`` gave, because the features of that call
                are used to bring it to the image's size.
            steps: Number of steps of the time grid.
            start: Fraction of the time steps to begin at, in (0, 1]. Below 1, sampling begins with
                the anchor's mask noised to that time, instead of pure noise.
            watch: Callback after each evaluation, called with its number and the masks estimated in
                it, of the shape and range of the result.

        Raises:
            ValueError: the sampler does not suit the process or does not return the last
                estimate, or the process has fewer steps.
        """
        grid = self.process.grid(steps, start)
        timesteps = torch.tensor(grid.timesteps, device=x_T.device).split(1)
        at = dict(zip(grid.timesteps, timesteps, strict=True))  # avoids a device transfer per step
        if start < 1.0:
            mask = anchor_mask(condition.coarse, x_T)
            first = self.process.add_noise(mask, x_T, timesteps[0])
        else:
            first = self.process.start(x_T)
        calls = 0
        previous: Tensor | None = None
        features = x_T

        def denoise(x_t: Tensor, t: int) -> Tensor:
            nonlocal previous, features, calls
            previous, features = self.x_0(x_t, at[t], condition, noise, previous)
            if watch is not None:
                watch(calls, self.fine(features, condition))
            calls += 1
            return previous

        x_0 = sampler(denoise, first, grid, noise)
        if previous is None or not (x_0 is previous or torch.equal(x_0, previous)):
            raise ValueError("the sampler must return the last estimate that denoise gave it.")
        return self.fine(features, condition)

    def fine(self, features: Tensor, condition: Conditioned) -> Tensor:
        """Class probabilities (B * N, K, *spatial) at full size, of features from ``x_0``."""
        return torch.softmax(self._refine(features, condition), dim=1)

    def _refine(self, features: Tensor, condition: Conditioned) -> Tensor:
        with self._autocast(features.device, self._image_size(features)):
            return self.denoiser.refine(features, condition).float()

    def _denoise(
        self,
        x_t: Tensor,
        t: Tensor,
        condition: Conditioned,
        noise: Noise,
        previous: Tensor | None = None,
    ) -> Denoised:
        """The denoiser's result, with its output in float32, at time steps (B * N,) or (1,)."""
        inputs = [self.process.network_input(x_t, t, condition.coarse)]
        if self.self_conditioning > 0.0:
            inputs.append(torch.zeros_like(x_t) if previous is None else previous.to(x_t))
        if self.samples_per_target > 1:
            inputs.append(noise(x_t))
        unit_time = t.float() / (self.process.n_timesteps - 1)
        x = torch.cat(inputs, dim=1) if len(inputs) > 1 else inputs[0]
        with self._autocast(x.device, self._image_size(x)):
            denoised = self.denoiser(x, unit_time, condition)
        return denoised._replace(output=denoised.output.float())

    def _image_size(self, state: Tensor) -> list[int]:
        """Spatial size of the padded images that states (B, C, *state) are of."""
        return [s * n for s, n in zip(self.stride, state.shape[2:], strict=True)]

    def _autocast(self, device: torch.device, size: Sequence[int]) -> AbstractContextManager[None]:
        """The networks' precision for images of the padded spatial ``size``."""
        smallest = min(n // m for n, m in zip(size, self.encoder.multiple, strict=True))
        return autocast(self.precision, device, smallest if self.training else None)

    @torch.no_grad()
    def _recycled(self, eps: Tensor, condition: Conditioned) -> Tensor:
        """Masks in [-1, 1] predicted from pure noise; only the shape of ``eps`` matters."""
        x_T = self.process.start(self.noise_like(eps))
        last = torch.full((1,), self.process.n_timesteps - 1, device=x_T.device)
        return self.x_0(x_T, last, condition, self.noise_like)[0]

    @torch.no_grad()
    def _first_estimate(self, x_t: Tensor, t: Tensor, condition: Conditioned) -> Tensor | None:
        """The denoiser's first estimate, with the probability of self-conditioning, else None."""
        if self.self_conditioning == 0.0 or float(torch.rand(())) >= self.self_conditioning:
            return None
        output = self._denoise(x_t, t, condition, self.noise_like).output
        return self.process.x_0_from_output(output, x_t, t, self.target)
