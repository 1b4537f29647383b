"""Running statistics over the members of an ensemble: no member's probabilities are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


class RunningMoments:
    """Mean and variance over members that come in batches, in float32 (Chan et al. 1979).

    The variance is that of the members' probabilities about their mean, divided by N, so for
    values in [0, 1] it lies in [0, 0.25].
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def update(self, members: Tensor) -> None:
        """Take in (n, ...) more members."""
        n = len(members)
        mean = members.float().mean(dim=0)
        squares = (members.float() - mean).square().sum(dim=0)
        if self.count == 0:
            self.count, self.mean, self.squares = n, mean, squares
            return
        total = self.count + n
        delta = mean - self.mean
        self.mean = self.mean + delta * (n / total)
        self.squares = self.squares + squares + delta.square() * (self.count * n / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Population variance over the members so far."""
        return self.squares / max(self.count, 1)


def most_probable(probability: Tensor) -> Tensor:
    """(N, K, *spatial) -> (N, *spatial) uint8, the class of the highest value, the first of equals.

    ``argmax`` over an axis that is not the last takes several times as long on a CPU.
    """
    highest, label = probability[:, 0], torch.zeros_like(probability[:, 0], dtype=torch.uint8)
    for k in range(1, probability.shape[1]):
        higher = probability[:, k] > highest
        highest = torch.where(higher, probability[:, k], highest)
        label.masked_fill_(higher, k)
    return label


def predictive_entropy(mean: Tensor, dim: int = 0) -> Tensor:
    """Entropy of the mean probability over the classes at ``dim``, in nats: in [0, ln K]."""
    return -torch.xlogy(mean, mean).sum(dim=dim).clamp(max=0.0)


@dataclass(frozen=True)
class Ensemble:
    """The members' statistics on one grid.

    Attributes:
        mean: (K, *spatial) float32 in [0, 1], summing to 1 over the classes.
        variance: (K, *spatial) float32 in [0, 0.25], over members.
        anchor: (K, *spatial) float32 in [0, 1], the deterministic mask's probabilities.
        labels: (N, *spatial) uint8 label map of each member.
        by_steps: (K, *spatial) float32 in [0, 1], the fusion by step uncertainty; None unless it
            was asked for.
        seconds: time spent in ``encode`` and ``sample``.
    """

    mean: Tensor
    variance: Tensor
    anchor: Tensor
    labels: Tensor
    by_steps: Tensor | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def stack_slices(slices: Sequence[Ensemble]) -> Ensemble:
    """The ensemble of a volume from those of its slices, stacked along a new last axis."""
    by_steps = [s.by_steps for s in slices if s.by_steps is not None]
    return Ensemble(
        mean=torch.stack([s.mean for s in slices], dim=-1),
        variance=torch.stack([s.variance for s in slices], dim=-1),
        anchor=torch.stack([s.anchor for s in slices], dim=-1),
        labels=torch.stack([s.labels for s in slices], dim=-1),
        by_steps=torch.stack(by_steps, dim=-1) if by_steps else None,
        seconds={name: sum(s.seconds[name] for s in slices) for name in slices[0].seconds},
    )
