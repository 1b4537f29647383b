"""Rules that fuse the members of an ensemble into one mask.

A rule gives scores (K, *spatial) that sum to 1 over the classes. The mask is the class of the
highest score, of equal ones the lowest class number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.core.types import Fusion
from medsegdiff.segmentation.ensemble import predictive_entropy

TINY = 1e-10
MOST_ROUNDS = 500


def fuse(rule: Fusion, mean: Tensor, labels: Tensor, by_steps: Tensor | None) -> Tensor:
    """Scores of the fused mask, (K, *spatial) float32.

    Args:
        rule: Name of the rule.
        mean: Mean probability (K, *spatial) of the members.
        labels: Label maps (N, *spatial) of the members.
        by_steps: Scores (K, *spatial) from ``StepUncertainty``, for that rule alone.
    """
    if rule in OVER_LABELS:
        return OVER_LABELS[rule](labels, len(mean))
    return mean if by_steps is None else by_steps


def vote_shares(labels: Tensor, num_classes: int) -> Tensor:
    """Share (K, *spatial) of the members (N, *spatial) that chose each class.

    The class of the highest share is the majority.

    Example:
        >>> votes = torch.tensor([[0, 1, 2], [0, 1, 1], [0, 2, 1], [0, 2, 0]])
        >>> vote_shares(votes, 3).argmax(dim=0)
        tensor([0, 1, 1])
    """
    return torch.stack([(labels == k).float().mean(dim=0) for k in range(num_classes)])


def staple(labels: Tensor, num_classes: int, most_rounds: int = MOST_ROUNDS) -> Tensor:
    """STAPLE of label maps that are all in memory (``fit_staple``).

    Args:
        labels: Label maps (N, *spatial).
        num_classes: Number K of classes.
        most_rounds: Largest number of rounds of expectation and maximisation.

    Returns:
        Probability (K, *spatial) that each class is the truth; 0 or 1 where members agree.
    """
    return fit_staple([labels], num_classes, most_rounds)(labels)


@dataclass(frozen=True)
class Staple:
    """Performance of the members as estimated by STAPLE, which gives the truth's probability.

    Attributes:
        confusion: Share (N, K, K) float64 of each class chosen by a member, given the true class.
        prior: Prior probability (K,) float64 of the true class.
    """

    confusion: Tensor
    prior: Tensor

    def __call__(self, labels: Tensor) -> Tensor:
        """Probability (K, *spatial) that each class is the truth, from labels (N, *spatial)."""
        votes = labels.flatten(1)
        posterior = F.one_hot(votes[0].long(), len(self.prior)).T.float()
        disputed = _disputed(votes)
        if disputed.any():
            truth = _expect(votes[:, disputed].long(), self.confusion, self.prior)
            posterior[:, disputed] = truth.float()
        return posterior.view(len(self.prior), *labels.shape[1:])


def fit_staple(
    parts: Iterable[Tensor],
    num_classes: int,
    most_rounds: int = MOST_ROUNDS,
    tolerance: float = 1e-7,
) -> Staple:
    """STAPLE (Warfield et al. 2004, sec. III; K classes: sec. III-E) by expectation-maximisation.

    Each member is weighted by its confusion matrix, which is estimated together with the truth.
    Only the voxels where members disagree are used. If all voxels were, the result would depend on
    the amount of background around the structure.

    Args:
        parts: Label maps (N, *spatial) of parts of the image, together all of it.
        num_classes: Number K of classes.
        most_rounds: Largest number of rounds of expectation and maximisation.
        tolerance: Change of the matrices' entries below which the rounds end.
    """
    patterns, weight = _disputes(parts)
    votes = patterns.new_zeros(num_classes, dtype=torch.float64)
    votes.index_add_(0, patterns.flatten(), weight.repeat(len(patterns)))
    prior = votes / votes.sum().clamp(min=1.0)
    wrong = 1e-5 / (num_classes - 1)  # at first every member is trusted
    confusion = torch.full((len(patterns), num_classes, num_classes), wrong, dtype=torch.float64)
    confusion.diagonal(dim1=1, dim2=2).fill_(1.0 - 1e-5)
    for _ in range(most_rounds if len(weight) else 0):
        truth = _expect(patterns, confusion, prior)
        before, confusion = confusion, _maximise(patterns, truth * weight)
        if float((confusion - before).abs().max()) < tolerance:
            break
    return Staple(confusion, prior)


def _disputes(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Distinct votes (N, P) of voxels where members disagree, and number of voxels (P,) of each."""
    patterns = torch.empty(0, 0, dtype=torch.long)
    weight = torch.empty(0, dtype=torch.float64)
    for labels in parts:
        votes = labels.flatten(1)
        disputed = _disputed(votes)
        if not disputed.any():
            continue
        found, count = torch.unique(votes[:, disputed].long(), dim=1, return_counts=True)
        found = torch.cat([patterns.view(len(found), -1), found], dim=1)
        counts = torch.cat([weight, count.double()])
        patterns, place = torch.unique(found, dim=1, return_inverse=True)
        weight = counts.new_zeros(patterns.shape[1]).index_add_(0, place, counts)
    return patterns, weight


def _disputed(votes: Tensor) -> Tensor:
    """Whether the votes (N, V) of a voxel differ, (V,)."""
    different = torch.zeros_like(votes[0], dtype=torch.bool)
    for other in votes[1:]:
        different |= other != votes[0]
    return different


def _expect(votes: Tensor, confusion: Tensor, prior: Tensor) -> Tensor:
    """Posterior (K, V) of the truth given votes (N, V) (Warfield et al. 2004, eq. 15)."""
    logarithm = confusion.clamp(min=TINY).log()
    score = prior.clamp(min=TINY).log().unsqueeze(1).expand(-1, votes.shape[1]).clone()
    for matrix, vote in zip(logarithm, votes, strict=True):
        score += matrix[:, vote]
    return torch.softmax(score, dim=0)


def _maximise(votes: Tensor, truth: Tensor) -> Tensor:
    """Share (N, K, K) of each class chosen, given the true one; rows sum to 1.

    Warfield et al. 2004, eq. 18 and 19, for K classes.
    """
    confusion = truth.new_zeros(len(votes), len(truth), len(truth))
    for matrix, vote in zip(confusion, votes, strict=True):
        matrix.index_add_(1, vote, truth)
    return confusion / truth.sum(dim=1).clamp(min=TINY).view(1, -1, 1)


class StepUncertainty:
    """Fusion of the members' predictions at all steps, certain and late steps most (Diff-UNet).

    p_i is the mean over the members of the clean mask predicted at the i-th of S denoiser calls,
    and the result the mean of all p_i with weights exp(sigmoid(i / S) (1 - u_i)) (Xing et al.
    2023, sec. 2.3). There u is -p log p of each class by itself; here it is the entropy over the
    classes as a share of ln K, so that the result is a probability. Keeps S maps.
    """

    def __init__(self) -> None:
        self.sums: list[Tensor] = []

    def add(self, call: int, members: Tensor) -> None:
        """Add the masks (N, K, *spatial) that members predict at a denoiser call, from 0."""
        total = members.float().sum(dim=0)
        if call < len(self.sums):
            self.sums[call] += total
        else:
            self.sums.append(total)

    @property
    def fused(self) -> Tensor:
        """Fused scores (K, *spatial) float32 of all members so far, summing to 1 over classes."""
        fused = torch.zeros_like(self.sums[0])
        for i, total in enumerate(self.sums, start=1):
            p = total / total.sum(dim=0)
            certainty = 1.0 - predictive_entropy(p) / math.log(max(len(p), 2))
            late = 1.0 / (1.0 + math.exp(-i / len(self.sums)))
            fused += torch.exp(late * certainty) * p
        return fused / fused.sum(dim=0)


OVER_LABELS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "majority": vote_shares,
    "staple": staple,
}
"""Rules that need the label maps alone."""
