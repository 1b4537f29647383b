"""A batch of images, with or without masks and labels -> a training step of ``ImageDiffusion``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.engines.utils import PrepareBatch
from torch import Tensor

from medsegdiff.core.types import UNKNOWN_CLASS
from medsegdiff.diffusion.process import low_discrepancy_timesteps
from medsegdiff.models.image_diffusion import ImageDiffusion, Part, channels_of


class NoisedImagePrepareBatch(PrepareBatch):
    """Noises images, or images and masks together, to times that cover [0, T) evenly.

    Args:
        network: Network by whose process the parts are noised.
        noised: Parts that are noised, and that the network learns to generate.
        given: Parts that the network sees clean.
        num_classes: Number K of classes of the masks, background included; 0: no masks are used.
        image_key: Key of the images (B, C, *spatial) in a batch.
        mask_key: Key of the label maps (B, 1, *spatial) in a batch.
        label_key: Key of each image's label, a whole number; None: images have no labels.
        label_dropout: Probability that a label is left out, for classifier-free guidance.
        mask_dropout: Probability that a given mask is left out (unknown everywhere), for the same
            purpose. Images without a mask, ``UNKNOWN_CLASS`` in all voxels, have the same effect.

    Raises:
        ValueError: a probability is outside [0, 1].
    """

    def __init__(
        self,
        network: ImageDiffusion,
        noised: Sequence[Part] = ("image",),
        given: Sequence[Part] = (),
        num_classes: int = 0,
        image_key: str = "image",
        mask_key: str = "label",
        label_key: str | None = None,
        label_dropout: float = 0.15,
        mask_dropout: float = 0.0,
    ) -> None:
        for name, value in (("label_dropout", label_dropout), ("mask_dropout", mask_dropout)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be in [0, 1]. Got {value}.")
        self.network, self.noised, self.given = network, tuple(noised), tuple(given)
        self.num_classes = num_classes
        self.image_key, self.mask_key, self.label_key = image_key, mask_key, label_key
        self.label_dropout, self.mask_dropout = label_dropout, mask_dropout

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Tensor]]:
        """x_0, target, () and {"eps", "t", ...}, in the form of MONAI's ``SupervisedTrainer``.

        Raises:
            ValueError: ``noised`` is empty, or a mask that is noised has voxels of unknown class.
        """

        def moved(key: str) -> Tensor:
            return torch.as_tensor(batchdata[key]).to(device, non_blocking=non_blocking)

        image = moved(self.image_key).float()
        mask = moved(self.mask_key) if "mask" in self.noised + self.given else None
        if mask is not None and "mask" in self.noised and (mask == UNKNOWN_CLASS).any():
            raise ValueError("a mask that is noised must be known. Got voxels of unknown class.")
        x_0 = channels_of(self.noised, image, mask, self.num_classes)
        if x_0 is None:
            raise ValueError("noised must name a part at least. Got none.")
        eps = torch.randn_like(x_0)
        t = low_discrepancy_timesteps(len(x_0), self.network.process.n_timesteps).to(x_0.device)
        further = {"eps": eps, "t": t}
        if mask is not None and self.mask_dropout and "mask" in self.given:
            left_out = torch.rand(len(mask), device=mask.device) < self.mask_dropout
            mask = mask.masked_fill(left_out.view(-1, *[1] * (mask.ndim - 1)), UNKNOWN_CLASS)
        given = channels_of(self.given, image, mask, self.num_classes)
        if given is not None:
            further["given"] = given
        if self.label_key is not None:
            label = moved(self.label_key).long().reshape(len(x_0))
            left_out = torch.rand(len(x_0), device=label.device) < self.label_dropout
            further["label"] = label.masked_fill(left_out, self.network.denoiser.num_labels)
        return x_0, self.network.target(x_0, eps, t), (), further
