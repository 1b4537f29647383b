"""Running statistics over the members of an ensemble: no member's probabilities are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Literal

import torch
from torch import Tensor

from medsegdiff.core.storage import Storage


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
        variance: (K, *spatial) float32 in [0, 0.25], over all that were drawn.
        anchor: (K, *spatial) float32 in [0, 1], the deterministic mask's probabilities.
        labels: (N, *spatial) uint8 label map of each member.
        by_steps: (K, *spatial) float32 in [0, 1], the fusion by step uncertainty; None unless it
            was asked for.
        seconds: time spent in ``encode`` and ``sample``.
        windows: how many were ``run``, and how many ``skipped`` as empty.
    """

    mean: Tensor
    variance: Tensor
    anchor: Tensor
    labels: Tensor
    by_steps: Tensor | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    windows: dict[str, int] = field(default_factory=dict)


class Tally:
    """What the windows of one image took.

    Args:
        total: windows of the image.
        progress: told after each window how many are done, and of how many.
    """

    def __init__(self, total: int, progress: Callable[[int, int], None] | None = None) -> None:
        self.total, self.progress = total, progress
        self.seconds = {"encode": 0.0, "sample": 0.0}
        self.windows = {"run": 0, "skipped": 0}

    def count(self, what: Literal["run", "skipped"]) -> None:
        """One window more is done."""
        self.windows[what] += 1
        if self.progress:
            self.progress(sum(self.windows.values()), self.total)


def stack_slices(slices: Iterable[Ensemble], depth: int, storage: Storage) -> Ensemble:
    """The ensemble of a volume from those of its slices, along a new last axis.

    Args:
        slices: in their order, taken one after the other.
        depth: how many there are.
        storage: makes the volume's arrays.
    """
    stacked: dict[str, Tensor] = {}
    for z, one in enumerate(slices):
        for name in (f.name for f in fields(one)):
            plane = getattr(one, name)
            if not isinstance(plane, Tensor):
                continue
            if name not in stacked:
                dtype = "uint8" if plane.dtype == torch.uint8 else "float32"
                volume = storage.zeros((*plane.shape, depth), dtype, slowest=-1)
                stacked[name] = torch.from_numpy(volume)
            stacked[name][..., z] = plane
        storage.release()
    return Ensemble(seconds={}, windows={}, **stacked)
