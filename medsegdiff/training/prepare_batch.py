"""A batch of images and masks -> the arguments of one training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from monai.engines.utils import PrepareBatch
from torch import Tensor

from medsegdiff.core.types import UNKNOWN_CLASS
from medsegdiff.diffusion.process import low_discrepancy_timesteps
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from medsegdiff.models.losses import AnchorTargets, DiffusionTargets
from medsegdiff.training.stages import freeze

_WHOLE = 0.999
"""Share of the voxels of a state from which all are known, but for rounding."""

Raters = Literal["one", "all", "mean"]
"""Choice of the raters' masks that a draw is made of, and compared with."""


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """One-hot masks (B, K, *spatial) float of class numbers (B, *spatial), K = ``num_classes``."""
    return F.one_hot(label.long(), num_classes).movedim(-1, 1).float()


class NoisedMaskPrepareBatch(PrepareBatch):
    """Draws several masks and their noise for each image, since the encoder runs only once.

    The anchor is compared with the mean of an image's raters, and each draw with

    - ``one``: the rater, chosen at random, whose mask was noised.
    - ``all``: that rater too; but a draw of pure noise, where nothing of a rater is left, is
      compared with all raters. The expectation is the same, and the variance smaller.
    - ``mean``: the raters' mean, a soft mask, which is noised as well.

    Voxels of ``UNKNOWN_CLASS`` are noised as background, and the loss leaves them out.

    The time steps of a batch's draws cover [0, T) evenly, except those of pure noise, which are
    at T - 1, where sampling starts. The last draw of a batch is always pure noise.

    Args:
        network: Network for whose process, target, classes and states the masks are prepared.
        draws: Number R of noisy masks for each image.
        pure_noise: Share of a batch's draws that are pure noise, chosen at random, in [0, 1].
        raters: Choice of the raters' masks, as listed above.
        every: Interval of the denoiser's training steps: it is trained in each ``every``-th step,
            the first included. The other steps train the encoder and its anchor alone, and cost
            less.
        anchor_steps: Number of first steps that train the encoder and its anchor alone; after them
            the encoder is frozen, and the denoiser learns on its features. 0: both learn together.
        image_key: Key of the images (B, C, *spatial) in a batch.
        label_key: Key of the raters' label maps (B, M, *spatial) in a batch.

    Raises:
        ValueError: ``every`` or ``draws`` is below 1, ``anchor_steps`` is below 0, ``pure_noise``
            is outside [0, 1], or ``raters`` is unknown.
    """

    def __init__(
        self,
        network: DiffusionSegmenter,
        draws: int = 2,
        pure_noise: float = 0.0,
        raters: Raters = "one",
        every: int = 1,
        anchor_steps: int = 0,
        image_key: str = "image",
        label_key: str = "label",
    ) -> None:
        if min(every, draws) < 1:
            raise ValueError(f"every and draws must be at least 1. Got {every}, {draws}.")
        if anchor_steps < 0:
            raise ValueError(f"anchor_steps must be 0 or more. Got {anchor_steps}.")
        if not 0.0 <= pure_noise <= 1.0:
            raise ValueError(f"pure_noise must be a share, from 0 to 1. Got {pure_noise}.")
        if raters not in get_args(Raters):
            raise ValueError(f"raters must be one of {list(get_args(Raters))}. Got {raters!r}.")
        self.network, self.draws, self.pure_noise = network, draws, pure_noise
        self.raters, self.every, self.anchor_steps = raters, every, anchor_steps
        self.steps = 0
        self.image_key, self.label_key = image_key, label_key

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, DiffusionTargets | AnchorTargets, tuple[()], dict[str, Tensor]]:
        """Image, targets, () and {"x_0", "eps", "t"}, in the form of ``SupervisedTrainer``.

        The network is called ``network(image, x_0=..., eps=..., t=...)``, and noises the masks. In
        a step that does not train the denoiser the dictionary is empty, and the network returns its
        anchor alone.
        """
        image = torch.as_tensor(batchdata[self.image_key]).to(device, non_blocking=non_blocking)
        label = torch.as_tensor(batchdata[self.label_key]).to(device, non_blocking=non_blocking)
        classes = self.network.num_classes
        unknown = label == UNKNOWN_CLASS
        label = label.masked_fill(unknown, 0)
        raters = torch.stack([one_hot(m, classes) for m in label.unbind(1)], dim=1)
        known = ~unknown.any(dim=1, keepdim=True) if unknown.any() else None
        if self._anchor_alone():
            return image, AnchorTargets(raters.mean(dim=1), known), (), {}
        noise, targets = self._noise_and_targets(raters, known)
        return image, targets, (), noise

    def _noise_and_targets(
        self, raters: Tensor, known: Tensor | None
    ) -> tuple[dict[str, Tensor], DiffusionTargets]:
        """Input and targets of the denoiser, from raters (B, M, K, *spatial)."""
        process, target = self.network.process, self.network.target
        noised = self._noised(raters)
        t = self._timesteps(len(raters)).to(raters.device)
        compared = self._compared(raters, noised, t)
        x_0 = self.network.to_state(2.0 * noised.flatten(0, 1) - 1.0)
        eps = torch.randn_like(x_0)
        answers = [
            self.network.to_state(2.0 * mask - 1.0) for mask in compared.flatten(0, 1).unbind(1)
        ]
        states = None if known is None else self.network.to_state(known.float()) > _WHOLE
        targets = DiffusionTargets(
            anchor=raters.mean(dim=1),
            mask=compared.flatten(0, 1),
            prediction=torch.stack([process.target(a, eps, t, target) for a in answers], dim=1),
            snr=process.snr(t),
            gain=process.gain(t, target),
            known=known,
            known_states=states,
        )
        return {"x_0": x_0, "eps": eps, "t": t}, targets

    def _anchor_alone(self) -> bool:
        """Whether this step is the encoder's alone. The encoder is frozen where its steps end."""
        step, self.steps = self.steps - self.anchor_steps, self.steps + 1
        if self.anchor_steps and step >= 0:
            freeze(self.network.encoder)
        return step < 0 or step % self.every > 0

    def state_dict(self) -> dict[str, int]:
        """Number of steps so far, which decides when the denoiser is trained."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from a state."""
        self.steps = state["steps"]

    def _timesteps(self, images: int) -> Tensor:
        """Time step (B * R,) of each draw."""
        n, last = images * self.draws, self.network.process.n_timesteps - 1
        t = low_discrepancy_timesteps(n, last + 1)
        t[torch.randperm(n)[: round(self.pure_noise * n)]] = last
        t[-1] = last
        return t

    def _noised(self, raters: Tensor) -> Tensor:
        """Mask (B, R, K, *spatial) that each draw noises, from raters (B, M, K, *spatial)."""
        b, m = raters.shape[:2]
        if self.raters == "mean":
            return raters.mean(dim=1, keepdim=True).expand(-1, self.draws, *raters.shape[2:])
        chosen = torch.randint(m, (b, self.draws), device=raters.device)
        return raters[torch.arange(b, device=raters.device)[:, None], chosen]

    def _compared(self, raters: Tensor, noised: Tensor, t: Tensor) -> Tensor:
        """Masks (B, R, M or 1, K, *spatial) that each draw is compared with."""
        own = noised.unsqueeze(2)
        if self.raters != "all":
            return own
        pure = (t == self.network.process.n_timesteps - 1).view(*own.shape[:2], 1, 1)
        return torch.where(pure.view(*pure.shape, *[1] * (own.ndim - 4)), raters.unsqueeze(1), own)
