"""The training loss: noise loss, Dice and cross-entropy on x_0, and the anchor's own."""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from monai.losses import DiceCELoss
from torch import Tensor, nn

from medsegdiff.model import SegmenterOutput


class DiffusionTargets(NamedTuple):
    """What a ``SegmenterOutput`` is compared with.

    Attributes:
        anchor: (B, K, *spatial) mean one-hot mask of the image's readers, in [0, 1].
        mask: (B * R, K, *spatial) one-hot mask of the reader of each draw.
        prediction: (B * R, K, *spatial) the denoiser's target (eps, v, or x_0 in [-1, 1]).
    """

    anchor: Tensor
    mask: Tensor
    prediction: Tensor


class DiffusionSegmentationLoss(nn.Module):
    """Weighted sum: noise loss + (Dice + CE) of x_0 + (Dice + CE) of the anchor (V2, eq. 1).

    Args:
        noise_weight: of the mean squared error on the denoiser's target.
        mask_weight: of Dice + CE on the clean mask that the denoiser sees.
        anchor_weight: of Dice + CE on the anchor.
        dice_weight: of Dice within Dice + CE; CE has 1 and, unlike Dice, rewards honest
            probabilities.
    """

    def __init__(
        self,
        noise_weight: float = 1.0,
        mask_weight: float = 1.0,
        anchor_weight: float = 1.0,
        dice_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.noise_weight, self.mask_weight = noise_weight, mask_weight
        self.anchor_weight = anchor_weight
        self.dice_ce = DiceCELoss(
            softmax=True, include_background=False, lambda_dice=dice_weight, batch=True
        )

    def forward(self, output: SegmenterOutput, targets: DiffusionTargets) -> Tensor:
        """Scalar loss of one batch."""
        noise = F.mse_loss(output.prediction, targets.prediction)
        mask = self.dice_ce(output.logits, targets.mask)
        anchor = self.dice_ce(output.anchor.float(), targets.anchor)
        return self.noise_weight * noise + self.mask_weight * mask + self.anchor_weight * anchor
