"""Stochastic segmentation network: Monteiro et al., NeurIPS 2020 (arXiv:2006.06015)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, LowRankMultivariateNormal, Normal

from benchmarks.contenders.unets import CHANNELS, MULTIPLE, make_unet
from benchmarks.harness.contender import (
    Batch,
    Contender,
    Prediction,
    cropped,
    padded,
    random_rater,
    summarised,
)
from benchmarks.harness.data import Study

RANK = 10
TRAINING_SAMPLES = 20
EPSILON = 1e-5


class StochasticSegmentation(nn.Module):
    """A U-Net whose heads are a low-rank normal distribution over all logits of an image."""

    def __init__(self, study: Study) -> None:
        super().__init__()
        conv, width = Conv[Conv.CONV, study.dims], CHANNELS[0]
        self.backbone = make_unet(study, outputs=width)
        self.mean = conv(width, study.num_classes, 1)
        self.log_diagonal = conv(width, study.num_classes, 1)
        self.factor = conv(width, study.num_classes * RANK, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, *spatial) -> mean, diagonal (B, K, *spatial) and factor (B, R, K, *spatial)."""
        features = F.relu(self.backbone(image))
        mean = self.mean(features).float()
        diagonal = self.log_diagonal(features).float().exp() + EPSILON
        return mean, diagonal, self.factor(features).float().unflatten(1, (RANK, -1))


def logits_distribution(mean: Tensor, diagonal: Tensor, factor: Tensor) -> Distribution:
    """The distribution of the flattened logits (B, K * voxels).

    A covariance that cannot be factorised counts as diagonal, as in the authors' code.
    """
    loc, diagonal = mean.flatten(1), diagonal.flatten(1)
    with torch.autocast(mean.device.type, enabled=False):
        try:
            low_rank = factor.flatten(2).mT
            return LowRankMultivariateNormal(loc, low_rank, diagonal, validate_args=False)
        except torch.linalg.LinAlgError:
            return Independent(Normal(loc, diagonal.sqrt(), validate_args=False), 1)


def ssn(study: Study, members: int) -> Contender:
    """One pass, then as many samples of the logits as wanted."""

    def loss(network: nn.Module, batch: Batch, step: int) -> Tensor:
        mean, diagonal, factor = network(batch["image"])
        with torch.autocast(mean.device.type, enabled=False):
            samples = logits_distribution(mean, diagonal, factor).rsample((TRAINING_SAMPLES,))
            logits = samples.unflatten(2, mean.shape[1:]).flatten(0, 1)
            label = random_rater(batch, step).long()
            target = label.expand(TRAINING_SAMPLES, *label.shape).flatten(0, 1)
            errors = F.cross_entropy(logits, target, reduction="none").flatten(1).sum(dim=1)
            likelihood = torch.logsumexp(-errors.view(TRAINING_SAMPLES, -1), dim=0)  # eq. 4
            return (math.log(TRAINING_SAMPLES) - likelihood).mean() / label[0].numel()

    def predict(networks: Sequence[nn.Module], image: Tensor, case: str) -> Prediction:
        maps = networks[0](padded(image, MULTIPLE))
        mean, diagonal, factor = (cropped(part, image) for part in maps)
        with torch.autocast(mean.device.type, enabled=False):
            samples = logits_distribution(mean, diagonal, factor).sample((members,))
            return summarised(torch.softmax(samples.view(members, *mean.shape[1:]), dim=1))

    return Contender(
        "ssn",
        [StochasticSegmentation(study)],
        loss,
        predict,
        members=members,
        note=f"the U-Net with low-rank ({RANK}) normal logits, trained on {TRAINING_SAMPLES} "
        "samples a step; no Dice in its loss",
    )
