"""A batch of images and masks -> the arguments of one training step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from monai.engines.utils import PrepareBatch
from torch import Tensor

from medsegdiff.diffusion.process import low_discrepancy_timesteps
from medsegdiff.losses import DiffusionTargets
from medsegdiff.model import DiffusionSegmenter


def one_hot(label: Tensor, num_classes: int) -> Tensor:
    """(..., *spatial) class indices at axis 1 removed: (B, *spatial) -> (B, K, *spatial) float."""
    return F.one_hot(label.long(), num_classes).movedim(-1, 1).float()


class NoisedMaskPrepareBatch(PrepareBatch):
    """Draws masks and their noise, several an image, since the encoder runs only once.

    Each draw takes one reader of the image at random; the anchor is compared with their mean. The
    time steps cover [0, T) evenly over the batch, and the last draw is always at T - 1: pure
    noise, where sampling starts.

    Args:
        network: whose process, target, classes and states the masks are prepared for.
        draws: R, noisy masks an image.
        every: the denoiser learns in each ``every``-th step, the first included; the others are for
            the encoder alone, whose anchor the denoiser corrects, and cost less.
        image_key: key of the images (B, C, *spatial) in a batch.
        label_key: key of the readers' label maps (B, M, *spatial).

    Raises:
        ValueError: for ``every`` below 1.
    """

    def __init__(
        self,
        network: DiffusionSegmenter,
        draws: int = 2,
        every: int = 1,
        image_key: str = "image",
        label_key: str = "label",
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1. Got {every}.")
        self.network, self.draws, self.every = network, draws, every
        self.steps = 0
        self.image_key, self.label_key = image_key, label_key

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, DiffusionTargets, tuple[()], dict[str, Tensor]]:
        """(image, targets, (), {"x_0", "eps", "t"}), as MONAI's ``SupervisedTrainer`` asks for.

        The network is called ``network(image, x_0=..., eps=..., t=...)``, and noises the masks. In
        a step that is not the denoiser's the last is empty, and the network answers with its
        anchor.
        """
        process, target = self.network.process, self.network.target
        image = torch.as_tensor(batchdata[self.image_key]).to(device, non_blocking=non_blocking)
        label = torch.as_tensor(batchdata[self.label_key]).to(device, non_blocking=non_blocking)
        classes = self.network.num_classes
        readers = torch.stack([one_hot(m, classes) for m in label.unbind(1)], dim=1)
        mask = self._draw_readers(readers)
        anchor_alone, self.steps = self.steps % self.every > 0, self.steps + 1
        x_0 = self.network.to_state(2.0 * mask - 1.0)
        t = low_discrepancy_timesteps(len(x_0), process.n_timesteps)
        t[-1] = process.n_timesteps - 1
        t = t.to(x_0.device)
        eps = torch.randn_like(x_0)
        targets = DiffusionTargets(
            anchor=readers.mean(dim=1),
            mask=mask,
            prediction=process.target(x_0, eps, t, target),
            snr=process.snr(t),
            gain=process.gain(t, target),
        )
        return image, targets, (), {} if anchor_alone else {"x_0": x_0, "eps": eps, "t": t}

    def _draw_readers(self, readers: Tensor) -> Tensor:
        """(B, M, K, *spatial) -> (B * R, K, *spatial), a reader at random for each draw."""
        b, m = readers.shape[:2]
        chosen = torch.randint(m, (b, self.draws), device=readers.device)
        return readers[torch.arange(b, device=readers.device)[:, None], chosen].flatten(0, 1)
