"""From the members of an ensemble to one mask: the rules, each a map of scores over the classes.

A rule gives (K, *spatial) that sum to 1 over the classes; the mask is the class of the highest,
of equal ones the lowest class number.
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
        rule: its name.
        mean: (K, *spatial) mean probability of the members.
        labels: (N, *spatial) their label maps.
        by_steps: (K, *spatial) from ``StepUncertainty``, for that rule alone.
    """
    if rule in OVER_LABELS:
        return OVER_LABELS[rule](labels, len(mean))
    return mean if by_steps is None else by_steps


def vote_shares(labels: Tensor, num_classes: int) -> Tensor:
    """Share of the members that chose each class: their highest is the majority.

    Example:
        >>> votes = torch.tensor([[0, 1, 2], [0, 1, 1], [0, 2, 1], [0, 2, 0]])
        >>> vote_shares(votes, 3).argmax(dim=0)
        tensor([0, 1, 1])
    """
    return torch.stack([(labels == k).float().mean(dim=0) for k in range(num_classes)])


def staple(labels: Tensor, num_classes: int, most_rounds: int = MOST_ROUNDS) -> Tensor:
    """STAPLE of label maps that are at hand all at once; see ``fit_staple``.

    Args:
        labels: (N, *spatial) label maps.
        num_classes: K.
        most_rounds: of expectation and maximisation.

    Returns:
        (K, *spatial) probability of each class to be the truth; 0 or 1 where members agree.
    """
    return fit_staple([labels], num_classes, most_rounds)(labels)


@dataclass(frozen=True)
class Staple:
    """What STAPLE found out about the members.

    Attributes:
        confusion: (N, K, K) share of each class chosen by a member, given the true one; float64.
        prior: (K,) of the truth, float64.
    """

    confusion: Tensor
    prior: Tensor

    def __call__(self, labels: Tensor) -> Tensor:
        """Probability (K, *spatial) of each class to be the truth, from labels (N, *spatial)."""
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

    Weighs each member by its confusion matrix, estimated together with the truth. Only the voxels
    where members disagree take part: the others are settled, and counting them would let the
    result depend on how much background is around the structure.

    Args:
        parts: (N, *spatial) label maps of parts of the image, together all of it.
        num_classes: K.
        most_rounds: of expectation and maximisation.
        tolerance: the rounds end once no entry of the matrices changes by more.
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
    """All ways (N, P) in which members disagree somewhere, and how often each occurs (P,)."""
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
    """(V,) whether the votes (N, V) differ."""
    different = torch.zeros_like(votes[0], dtype=torch.bool)
    for other in votes[1:]:
        different |= other != votes[0]
    return different


def _expect(votes: Tensor, confusion: Tensor, prior: Tensor) -> Tensor:
    """Posterior (K, V) of the truth, the members' votes (N, V) given it independent (eq. 15)."""
    logarithm = confusion.clamp(min=TINY).log()
    score = prior.clamp(min=TINY).log().unsqueeze(1).expand(-1, votes.shape[1]).clone()
    for matrix, vote in zip(logarithm, votes, strict=True):
        score += matrix[:, vote]
    return torch.softmax(score, dim=0)


def _maximise(votes: Tensor, truth: Tensor) -> Tensor:
    """(N, K, K) share of each class chosen, given the true one (eq. 18 and 19); rows sum to 1."""
    confusion = truth.new_zeros(len(votes), len(truth), len(truth))
    for matrix, vote in zip(confusion, votes, strict=True):
        matrix.index_add_(1, vote, truth)
    return confusion / truth.sum(dim=1).clamp(min=TINY).view(1, -1, 1)


class StepUncertainty:
    """Fuses what members predict at every step, certain and late steps most (Diff-UNet, SUF).

    p_i is the mean over the members of the clean mask predicted at the i-th of S denoiser calls,
    and the result the mean of all p_i with weights exp(sigmoid(i / S) (1 - u_i)) (Xing et al.
    2023, sec. 2.3). There u is -p log p of each class by itself; here it is the entropy over the
    classes as a share of ln K, so that the result is a probability. Keeps S maps.
    """

    def __init__(self) -> None:
        self.sums: list[Tensor] = []

    def add(self, call: int, members: Tensor) -> None:
        """Take in what some members (N, K, *spatial) looked like at a denoiser call, from 0."""
        total = members.float().sum(dim=0)
        if call < len(self.sums):
            self.sums[call] += total
        else:
            self.sums.append(total)

    @property
    def fused(self) -> Tensor:
        """(K, *spatial) float32 that sums to 1 over the classes, of all members so far."""
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
"""Rules that look at label maps alone."""
