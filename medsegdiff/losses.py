"""The training loss: noise loss, Dice and cross-entropy on x_0, and the anchor's own."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from torch import Tensor, nn

from medsegdiff.model import SegmenterOutput

NoiseWeighting = Literal["constant", "min_snr", "snr_plus_1"]
"""How the noise loss weights the time steps."""


class DiffusionTargets(NamedTuple):
    """What a ``SegmenterOutput`` is compared with.

    Attributes:
        anchor: (B, K, *spatial) mean one-hot mask of the image's readers, in [0, 1].
        mask: (B * R, K, *spatial) one-hot mask of the reader of each draw.
        prediction: (B * R, K, *spatial) the denoiser's target (eps, v, or x_0 in [-1, 1]).
        snr: (B * R,) signal-to-noise ratio of each draw.
        gain: (B * R,) squared error of ``prediction`` for a squared error 1 of x_0.
    """

    anchor: Tensor
    mask: Tensor
    prediction: Tensor
    snr: Tensor
    gain: Tensor


def noise_weights(
    snr: Tensor, gain: Tensor, weighting: NoiseWeighting, snr_limit: float = 5.0
) -> Tensor:
    """(B,) weight of each draw's squared error.

    ``min_snr`` weights an error of x_0 by min(SNR, ``snr_limit``) (Hang et al. 2023, eq. 8),
    ``snr_plus_1`` by SNR + 1 (Salimans & Ho 2022, sec. 4; of no use to ``eps``, which it weights
    without bound). An error of another target is ``gain`` times that of x_0, which is divided out;
    where that is 0, the target says nothing of x_0, and the weight is 0.

    Example:
        >>> snr = torch.tensor([0.5, 50.0])
        >>> noise_weights(snr, torch.ones(2), "min_snr")
        tensor([0.5000, 5.0000])
        >>> noise_weights(snr, snr + 1, "snr_plus_1")
        tensor([1., 1.])
    """
    if weighting == "constant":
        return torch.ones_like(snr)
    of_x_0 = snr.clamp(max=snr_limit) if weighting == "min_snr" else snr + 1.0
    return torch.where(gain > 0.0, of_x_0 / gain, 0.0)


class DiffusionSegmentationLoss(nn.Module):
    """Weighted sum: noise loss + (Dice + CE) of x_0 + (Dice + CE) of the anchor (V2, eq. 1).

    Args:
        noise_weight: of the mean squared error on the denoiser's target.
        mask_weight: of Dice + CE on the clean mask that the denoiser sees.
        anchor_weight: of Dice + CE on the anchor.
        dice_weight: of Dice within Dice + CE; CE has 1 and, unlike Dice, rewards honest
            probabilities.
        noise_weighting: of the time steps in the noise loss (see ``noise_weights``).
        snr_limit: gamma of ``min_snr``.

    Raises:
        ValueError: for an unknown weighting.
    """

    def __init__(
        self,
        noise_weight: float = 1.0,
        mask_weight: float = 1.0,
        anchor_weight: float = 1.0,
        dice_weight: float = 1.0,
        noise_weighting: NoiseWeighting = "constant",
        snr_limit: float = 5.0,
    ) -> None:
        super().__init__()
        if noise_weighting not in get_args(NoiseWeighting):
            known = list(get_args(NoiseWeighting))
            raise ValueError(f"noise_weighting must be one of {known}. Got {noise_weighting!r}.")
        self.noise_weighting, self.snr_limit = noise_weighting, snr_limit
        self.noise_weight, self.mask_weight = noise_weight, mask_weight
        self.anchor_weight = anchor_weight
        self.dice_ce = DiceCELoss(
            softmax=True, include_background=False, lambda_dice=dice_weight, batch=True
        )

    def forward(self, output: SegmenterOutput, targets: DiffusionTargets) -> Tensor:
        """Scalar loss of one batch."""
        error = F.mse_loss(output.prediction, targets.prediction, reduction="none").flatten(1)
        weights = noise_weights(targets.snr, targets.gain, self.noise_weighting, self.snr_limit)
        noise = (weights * error.mean(dim=1)).mean()
        mask = self.dice_ce(output.logits, targets.mask)
        anchor = self.dice_ce(output.anchor.float(), targets.anchor)
        return self.noise_weight * noise + self.mask_weight * mask + self.anchor_weight * anchor
