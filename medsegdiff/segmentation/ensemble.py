"""Running statistics over the members of an ensemble; no member's probabilities are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Literal

import torch
from torch import Tensor

from medsegdiff.core.storage import Storage


class RunningMoments:
    """Mean and variance over members that come in batches, float32 (Chan et al. 1979, eq. 2.1).

    The variance is that of the members' probabilities about their mean, divided by N, so for
    values in [0, 1] it lies in [0, 0.25].
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.squares = torch.zeros(())

    def update(self, members: Tensor) -> None:
        """Add n members, (n, ...)."""
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
        """Population variance (...) over the members so far."""
        return self.squares / max(self.count, 1)


def most_probable(probability: Tensor) -> Tensor:
    """Class of the highest value, the first of equals: (N, K, *spatial) -> (N, *spatial) uint8.

    Classes are counted until the highest. ``argmax`` over an axis that is not the last takes forty
    times as long on a CPU.
    """
    highest = probability.amax(dim=1)
    label = torch.zeros_like(highest, dtype=torch.uint8)
    before = torch.ones_like(highest, dtype=torch.bool)
    for k in range(probability.shape[1] - 1):
        before &= probability[:, k] < highest
        label += before
    return label


def predictive_entropy(mean: Tensor, dim: int = 0) -> Tensor:
    """Entropy in nats, [0, ln K], of the mean probability, whose K classes are at axis ``dim``."""
    return -torch.xlogy(mean, mean).sum(dim=dim).clamp(max=0.0)


@dataclass(frozen=True)
class Ensemble:
    """The members' statistics on one grid.

    Attributes:
        mean: Mean probability (K, *spatial) float32 in [0, 1], summing to 1 over the classes.
        variance: Variance (K, *spatial) float32 in [0, 0.25], over all members that were drawn.
        anchor: Probability (K, *spatial) float32 in [0, 1] of the deterministic mask; None where
            there is none.
        labels: Label map (N, *spatial) uint8 of each member.
        by_steps: Fusion by step uncertainty, (K, *spatial) float32 in [0, 1]; None unless chosen.
        seconds: Time spent in ``encode`` and ``sample``, in seconds.
        windows: Number of windows that were ``run``, and that were ``skipped`` as empty.
    """

    mean: Tensor
    variance: Tensor
    anchor: Tensor | None
    labels: Tensor
    by_steps: Tensor | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    windows: dict[str, int] = field(default_factory=dict)


class WindowProgress:
    """Number of windows done and time spent, for the windows of one image.

    Args:
        total: Number of windows of the image.
        progress: Callback after each window, called with the number done and the total.
    """

    def __init__(self, total: int, progress: Callable[[int, int], None] | None = None) -> None:
        self.total, self.progress = total, progress
        self.seconds = {"encode": 0.0, "sample": 0.0}
        self.windows = {"run": 0, "skipped": 0}

    def count(self, what: Literal["run", "skipped"]) -> None:
        """Count one more window, and call ``progress``."""
        self.windows[what] += 1
        if self.progress:
            self.progress(sum(self.windows.values()), self.total)


def stack_slices(slices: Iterable[Ensemble], depth: int, storage: Storage) -> Ensemble:
    """The ensemble of a volume from those of its slices, along a new last axis.

    Args:
        slices: Ensembles of the slices, in order; they are consumed one by one.
        depth: Number of slices.
        storage: Maker of the volume's arrays.

    Raises:
        InputError: the disk has no room for the volume.
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
