"""The training loss: noise loss, Dice and cross-entropy on x_0, and the same on the anchor."""

from __future__ import annotations

from itertools import combinations
from typing import Literal, NamedTuple, get_args

import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn

from medsegdiff.models.diffusion_segmenter import SegmenterOutput

NoiseWeighting = Literal["constant", "min_snr", "snr_plus_1"]
"""Weighting of the time steps in the noise loss."""


_CERTAIN = 50.0
"""Logit of the background, and minus that of other classes, where a voxel does not count."""


class AnchorTargets(NamedTuple):
    """Targets of a step that trains the encoder and its anchor alone.

    Attributes:
        anchor: Mean one-hot mask (B, K, *spatial) of the image's raters, in [0, 1].
        known: Mask (B, 1, *spatial) of the voxels whose class is known; others count nowhere.
            None: known everywhere.
    """

    anchor: Tensor
    known: Tensor | None = None


class DiffusionTargets(NamedTuple):
    """Targets that the loss compares a ``SegmenterOutput`` with.

    Attributes:
        anchor: Mean one-hot mask (B, K, *spatial) of the image's raters, in [0, 1].
        mask: Masks (B * R, M, K, *spatial), one-hot or soft; each of the M is a correct answer for
            the draw.
        prediction: Targets (B * R, M, K, *state) of the denoiser (eps, v, or x_0 in [-1, 1]).
        snr: Signal-to-noise ratio (B * R,) of each draw.
        gain: Squared error (B * R,) of ``prediction`` that corresponds to a squared error of 1 of
            x_0.
        known: Mask (B, 1, *spatial) of the voxels whose class is known; others count nowhere.
            None: known everywhere.
        known_states: Mask (B, 1, *state) of the states all of whose voxels are known; or None.
    """

    anchor: Tensor
    mask: Tensor
    prediction: Tensor
    snr: Tensor
    gain: Tensor
    known: Tensor | None = None
    known_states: Tensor | None = None


def noise_weights(
    snr: Tensor, gain: Tensor, weighting: NoiseWeighting, snr_limit: float = 5.0
) -> Tensor:
    """(B,) weight of each draw's squared error.

    ``min_snr`` weights an error of x_0 by min(SNR, ``snr_limit``) (Hang et al. 2023, eq. 8),
    ``snr_plus_1`` by SNR + 1 (Salimans & Ho 2022, sec. 4; of no use to ``eps``, which it weights
    without bound). The squared error of another target is ``gain`` times that of x_0, so the weight
    is divided by ``gain``; where ``gain`` is 0, the target does not depend on x_0 and the weight is
    0.

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


def jaccard_distance(p: Tensor, q: Tensor, smooth: float = 1.0) -> Tensor:
    """1 - IoU of soft masks.

    The mean over the foreground classes of 1 - (sum min(p, q) + s) / (sum max(p, q) + s): a metric
    whose energy distance between sets of masks is GED^2. The s voxels added to both sums keep it
    defined, with a distance of 0 between two empty masks.

    Args:
        p: Probabilities (A, K, V), with flattened space.
        q: Probabilities of the same shape as ``p``.
        smooth: Number s of voxels.

    Returns:
        (A,) in [0, 1).

    Example:
        >>> p = torch.tensor([[[0.0, 0, 1, 1], [1, 1, 0, 0]]])
        >>> q = torch.tensor([[[0.0, 1, 1, 1], [1, 0, 0, 0]]])
        >>> jaccard_distance(p, q, smooth=0.0)
        tensor([0.5000])
    """
    p, q = p[:, 1:], q[:, 1:]
    overlap = torch.minimum(p, q).sum(dim=-1)
    union = p.sum(dim=-1) + q.sum(dim=-1) - overlap
    return (1.0 - (overlap + smooth) / (union + smooth)).mean(dim=1)


def energy_score(samples: Tensor, truth: Tensor) -> Tensor:
    """Mean energy score of sets of samples under the Jaccard distance d (Gneiting & Raftery 2007).

    E d(sample, truth) - E d(sample, other sample) / 2. Its expectation is least for samples drawn
    from the distribution of the truth. With the raters' masks as truths it is half of GED^2, up to
    a term that does not depend on the samples.

    Args:
        samples: Probabilities (A * G, K, *spatial), the G samples for one truth side by side.
        truth: Masks (A, M, K, *spatial), M equally correct ones for each.

    Raises:
        ValueError: there are fewer than two samples.
    """
    if len(samples) < 2 * len(truth):
        raise ValueError(
            "an energy score needs a network with samples_per_target of at least 2. Got 1."
        )
    drawn = samples.flatten(2).unflatten(0, (len(truth), -1)).unbind(1)
    truths = truth.flatten(3).to(samples).unbind(1)
    hit = torch.stack([jaccard_distance(sample, one) for sample in drawn for one in truths]).mean()
    pairs = list(combinations(drawn, 2))
    spread = torch.stack([jaccard_distance(one, other) for one, other in pairs]).mean()
    return hit - spread / 2.0


def _known_energy_score(samples: Tensor, truth: Tensor, known: Tensor | None) -> Tensor:
    """Energy score over the voxels whose class is known: elsewhere no mask has any foreground."""
    if known is None:
        return energy_score(samples, truth)
    of_samples = known.repeat_interleave(len(samples) // len(known), dim=0)
    of_truth = known.repeat_interleave(len(truth) // len(known), dim=0).unsqueeze(1)
    return energy_score(samples * of_samples, truth * of_truth)


def _mean_where(error: Tensor, known: Tensor | None) -> Tensor:
    """(A,) mean of errors (A, M, K, *state), over the known states (B, 1, *state) alone."""
    if known is None:
        return error.flatten(1).mean(dim=1)
    known = known.repeat_interleave(len(error) // len(known), dim=0).unsqueeze(1).expand_as(error)
    return (error * known).flatten(1).sum(dim=1) / known.flatten(1).sum(dim=1).clamp(min=1)


class DiffusionSegmentationLoss(nn.Module):
    """Weighted sum: noise loss + (Dice + CE) of x_0 + (Dice + CE) of the anchor (V2, eq. 1).

    For a distributional denoiser, whose samples should differ, the first two terms are replaced by
    an energy score of its coarse and its fine masks (De Bortoli et al. 2025).

    Args:
        noise_weight: Weight of the mean squared error on the denoiser's target.
        mask_weight: Weight of Dice + CE on the predicted clean mask.
        anchor_weight: Weight of Dice + CE on the anchor.
        dice_weight: Weight of Dice within Dice + CE. CE has weight 1 and, unlike Dice, rewards
            calibrated probabilities.
        energy_weight: Weight of the energy score; needs a network with ``samples_per_target`` above
            1.
        noise_weighting: Weighting of the time steps in the noise loss (see ``noise_weights``).
        snr_limit: Limit gamma of ``min_snr``.

    Raises:
        ValueError: the weighting is unknown.
    """

    def __init__(
        self,
        noise_weight: float = 1.0,
        mask_weight: float = 1.0,
        anchor_weight: float = 1.0,
        dice_weight: float = 1.0,
        energy_weight: float = 0.0,
        noise_weighting: NoiseWeighting = "constant",
        snr_limit: float = 5.0,
    ) -> None:
        super().__init__()
        if noise_weighting not in get_args(NoiseWeighting):
            known = list(get_args(NoiseWeighting))
            raise ValueError(f"noise_weighting must be one of {known}. Got {noise_weighting!r}.")
        self.noise_weighting, self.snr_limit = noise_weighting, snr_limit
        self.noise_weight, self.mask_weight = noise_weight, mask_weight
        self.anchor_weight, self.energy_weight = anchor_weight, energy_weight
        self.dice_ce = DiceCELoss(
            softmax=True, include_background=False, lambda_dice=dice_weight, batch=True
        )

    def forward(
        self, output: SegmenterOutput | Tensor, targets: DiffusionTargets | AnchorTargets
    ) -> Tensor:
        """Scalar loss of one batch; for an anchor (B, K, *spatial) alone, the anchor's loss."""
        anchor = output.anchor if isinstance(output, SegmenterOutput) else output
        loss = self.anchor_weight * self._dice_ce(anchor, targets.anchor, targets.known)
        if not isinstance(output, SegmenterOutput) or isinstance(targets, AnchorTargets):
            return loss
        samples_per_target = len(output.logits) // len(targets.mask)
        if self.energy_weight > 0.0:
            fine = _known_energy_score(
                torch.softmax(output.logits, dim=1), targets.mask, targets.known
            )
            seen, aim = (x / 2.0 + 0.5 for x in (output.prediction, targets.prediction))
            coarse = _known_energy_score(seen, aim, targets.known_states)
            loss = loss + self.energy_weight * (fine + coarse)
        if self.noise_weight > 0.0:
            loss = loss + self.noise_weight * self._noise_loss(output, targets, samples_per_target)
        if self.mask_weight > 0.0:
            mask = targets.mask.mean(dim=1).repeat_interleave(samples_per_target, dim=0)
            loss = loss + self.mask_weight * self._dice_ce(output.logits, mask, targets.known)
        return loss

    def _dice_ce(self, logits: Tensor, mask: Tensor, known: Tensor | None) -> Tensor:
        """Dice and cross-entropy of logits and masks (A, K, *spatial) where the class is known.

        Elsewhere both are certain of the background, which adds nothing to the Dice of the
        foreground nor to the sum of the cross-entropy, whose mean is then taken over the rest.
        """
        if known is None:
            return self.dice_ce(logits, mask)
        known = known.repeat_interleave(len(logits) // len(known), dim=0)
        background = torch.zeros_like(logits)
        background[:, 0] = 1.0
        logits = torch.where(known, logits, _CERTAIN * (2.0 * background - 1.0))
        mask = torch.where(known, mask, background)
        share = known.float().mean().clamp(min=1.0 / known.numel())
        both = self.dice_ce
        dice, ce = both.dice(logits, mask), both.ce(logits, mask) / share
        return both.lambda_dice * dice + both.lambda_ce * ce

    def _noise_loss(
        self, output: SegmenterOutput, targets: DiffusionTargets, samples_per_target: int
    ) -> Tensor:
        aim = targets.prediction.repeat_interleave(samples_per_target, dim=0)
        error = (output.prediction.unsqueeze(1) - aim).square()
        error = _mean_where(error, targets.known_states)
        weights = noise_weights(targets.snr, targets.gain, self.noise_weighting, self.snr_limit)
        return (weights.repeat_interleave(samples_per_target) * error).mean()
