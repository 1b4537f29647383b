"""Metrics of sets of masks and of probabilities for anyone's training loop, by torchmetrics.

Each is a thin class over the functions of this package: ``update`` takes the images of a batch,
``compute`` gives the mean over the images for which the figure is defined. The states are sums, so
that several processes add theirs, as torchmetrics does by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from medsegdiff.core.types import UNKNOWN_CLASS
from medsegdiff.metrics import sample_sets
from medsegdiff.metrics.calibration_error import (
    BINS,
    Reliability,
    brier,
    nll,
    region_of_interest,
    reliability,
)

Batch = Tensor | Sequence[Tensor]
"""Maps of the images of a batch: (B, ...), or B of them (...), which may differ in size."""


class MeanOverImages(Metric):
    """Base of metrics that average figures of images; NaN is undefined and leaves the mean.

    Args:
        classes: Class numbers of the foreground.
        figures: Number of figures that an image has.
        settings: Further arguments of ``torchmetrics.Metric``.
    """

    full_state_update = False
    is_differentiable = False
    total: Tensor
    count: Tensor

    def __init__(self, classes: Sequence[int], figures: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.classes = tuple(classes)
        if not self.classes:
            raise ValueError("classes must name at least one foreground class. Got none.")
        zeros = torch.zeros(figures, dtype=torch.float64)
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("count", zeros.clone(), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """Scalar: mean over the images, then over the figures; NaN if none is defined."""
        return (self.total / self.count).nanmean()

    def _add(self, figures: Sequence[float]) -> None:
        found = torch.tensor(figures, dtype=torch.float64, device=self.total.device)
        self.total += found.nan_to_num(nan=0.0)
        self.count += ~found.isnan()


class SampleSetMetric(MeanOverImages):
    """Base of metrics that compare sampled masks with those of raters.

    Distances are 1 - IoU, averaged over the foreground classes. Voxels that a rater left unknown
    (255) count as background in all masks.

    Args:
        classes: Class numbers of the foreground.
        settings: Further arguments of ``torchmetrics.Metric``.
    """

    def __init__(self, classes: Sequence[int] = (1,), **settings: Any) -> None:
        super().__init__(classes, 1, **settings)

    def update(self, members: Batch, references: Batch) -> None:
        """Add the images of a batch.

        Args:
            members: Label maps (B, N, *spatial) of N samples, or B of them (N, *spatial).
            references: Label maps (B, M, *spatial) of M raters, or B of them (M, *spatial).

        Raises:
            ValueError: the shapes do not fit each other.
        """
        for samples, raters in _pairs(members, references):
            unknown = (raters == UNKNOWN_CLASS).any(axis=0)
            if unknown.any():
                samples, raters = (np.where(unknown, 0, maps) for maps in (samples, raters))
            self._add([self._figure(samples, raters)])

    def _figure(self, samples: NDArray[Any], raters: NDArray[Any]) -> float:
        raise NotImplementedError

    def _iou(self, first: NDArray[Any], second: NDArray[Any]) -> sample_sets.Matrix:
        return sample_sets.mean_iou(first, second, self.classes)


class GeneralizedEnergyDistance(SampleSetMetric):
    """GED² in [0, 2], lower is better (Kohl et al., 2018); see ``sample_sets.ged2``.

    >>> _ = torch.manual_seed(0)
    >>> members, raters = torch.randint(0, 2, (1, 4, 8, 8)), torch.randint(0, 2, (1, 2, 8, 8))
    >>> metric = GeneralizedEnergyDistance()
    >>> metric.update(members, raters)
    >>> bool(metric.compute() > 0)
    True
    >>> metric.reset()
    >>> metric.update(raters, raters)
    >>> metric.compute().item()
    0.0
    """

    higher_is_better = False

    def _figure(self, samples: NDArray[Any], raters: NDArray[Any]) -> float:
        pairs = ((samples, raters), (samples, samples), (raters, raters))
        return sample_sets.ged2(*(self._iou(*pair) for pair in pairs))


class HungarianMatchedIoU(SampleSetMetric):
    """HM-IoU in [0, 1], higher is better (Kohl et al., 2019); see ``sample_sets.hm_iou``.

    >>> _ = torch.manual_seed(0)
    >>> raters = torch.randint(0, 2, (1, 2, 8, 8))
    >>> metric = HungarianMatchedIoU()
    >>> metric.update(raters.flip(1), raters)
    >>> metric.compute().item()
    1.0
    """

    higher_is_better = True

    def _figure(self, samples: NDArray[Any], raters: NDArray[Any]) -> float:
        return sample_sets.hm_iou(self._iou(samples, raters))


class SampleDiversity(SampleSetMetric):
    """Mean 1 - IoU of all pairs of samples, in [0, 1]; to be compared with that of the raters.

    >>> _ = torch.manual_seed(0)
    >>> same = torch.randint(0, 2, (1, 1, 8, 8)).expand(1, 4, 8, 8)
    >>> metric = SampleDiversity()
    >>> metric.update(same, same[:, :1])
    >>> metric.compute().item()
    0.0
    """

    def _figure(self, samples: NDArray[Any], raters: NDArray[Any]) -> float:
        return sample_sets.diversity(self._iou(samples, samples))


class ProbabilityMetric(MeanOverImages):
    """Base of metrics that judge the probability of each foreground class by itself.

    With several raters the truth is the share of them that marks a voxel. Voxels that a rater left
    unknown (255) are left out.

    Args:
        classes: Class numbers of the foreground.
        near: Number of voxels around what any rater marked within which voxels count; None: the
            whole image. Where nobody marked the class, the figure is undefined.
        per_class: Whether ``compute`` gives the mean (K,) of each class instead of their mean.
        settings: Further arguments of ``torchmetrics.Metric``.
    """

    higher_is_better = False

    def __init__(
        self,
        classes: Sequence[int] = (1,),
        near: int | None = None,
        per_class: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(classes, len(tuple(classes)), **settings)
        self.near, self.per_class = near, per_class

    def update(self, probabilities: Batch, references: Batch) -> None:
        """Add the images of a batch.

        Args:
            probabilities: Probabilities (B, classes, *spatial) in [0, 1], with background first, so
                that class c is channel c; or B of them (classes, *spatial).
            references: Label maps (B, M, *spatial) of M raters, or B of them (M, *spatial).

        Raises:
            ValueError: the shapes do not fit each other, or a class has no channel.
        """
        for probability, raters in _pairs(probabilities, references):
            if max(self.classes) >= len(probability):
                rule = f"class {max(self.classes)} needs as many channels, and one for background"
                raise ValueError(f"{rule}. Got {len(probability)} channels.")
            known = (raters != UNKNOWN_CLASS).all(axis=0)
            figures = []
            for number, k in enumerate(self.classes):
                marked = raters == k
                counts = known
                if self.near is not None:
                    counts = known & region_of_interest(marked.any(axis=0), self.near)
                p, share = probability[k][counts], marked.mean(axis=0)[counts]
                figures.append(self._figure(p, share, number) if p.size else float("nan"))
            self._add(figures)

    def compute(self) -> Tensor:
        """Mean over the images, (K,) or of all classes; NaN where none is defined."""
        return self.total / self.count if self.per_class else super().compute()

    def _figure(self, p: NDArray[Any], share: NDArray[Any], number: int) -> float:
        """Figure of the voxels (V,) of one class, the ``number``-th of ``classes``."""
        raise NotImplementedError


class ExpectedCalibrationError(ProbabilityMetric):
    """ECE in [0, 1], lower is better (Naeini et al., 2015); see ``metrics.reliability``.

    Args:
        classes: Class numbers of the foreground.
        near: Number of voxels around what any rater marked within which voxels count; None: the
            whole image, whose background flatters.
        per_class: Whether ``compute`` gives the figure (K,) of each class instead of their mean.
        bins: Number of bins of equal width.
        pooled: Whether the voxels of all images share the bins, as in
            ``torchmetrics.CalibrationError``, instead of the mean of the images' own figures.
        settings: Further arguments of ``torchmetrics.Metric``.

    >>> probability = torch.full((1, 2, 8, 8), 0.5)
    >>> truth = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    >>> truth[..., :2] = 1  # a quarter
    >>> metric = ExpectedCalibrationError()
    >>> metric.update(probability, truth)
    >>> metric.compute().item()
    0.25
    """

    voxels: Tensor
    probability: Tensor
    positive: Tensor

    def __init__(
        self,
        classes: Sequence[int] = (1,),
        near: int | None = None,
        per_class: bool = False,
        bins: int = BINS,
        pooled: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(classes, near, per_class, **settings)
        self.bins, self.pooled = bins, pooled
        for name in ("voxels", "probability", "positive"):
            zeros = torch.zeros(len(self.classes), bins, dtype=torch.float64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """ECE, (K,) or the mean of all classes; NaN where none is defined."""
        if not self.pooled:
            return super().compute()
        sums = (x.cpu().numpy() for x in (self.voxels, self.probability, self.positive))
        found = torch.tensor([Reliability(*rows).ece for rows in zip(*sums, strict=True)])
        found = found.to(self.total)
        return found if self.per_class else found.nanmean()

    def _figure(self, p: NDArray[Any], share: NDArray[Any], number: int) -> float:
        found = reliability(p, share, bins=self.bins)
        for state, values in (
            (self.voxels, found.count),
            (self.probability, found.probability),
            (self.positive, found.positive),
        ):
            state[number] += torch.as_tensor(values).to(state)
        return found.ece


class NegativeLogLikelihood(ProbabilityMetric):
    """NLL in nats, lower is better; probabilities are clamped to [1e-7, 1 - 1e-7].

    >>> metric = NegativeLogLikelihood()
    >>> metric.update(torch.full((1, 2, 4, 4), 0.5), torch.ones(1, 1, 4, 4, dtype=torch.uint8))
    >>> round(metric.compute().item(), 4)
    0.6931
    """

    def _figure(self, p: NDArray[Any], share: NDArray[Any], number: int) -> float:
        return nll(p, share)


class BrierScore(ProbabilityMetric):
    """Brier score in [0, 1], lower is better: mean squared difference of probability and truth.

    >>> metric = BrierScore()
    >>> metric.update(torch.full((1, 2, 4, 4), 0.5), torch.ones(1, 1, 4, 4, dtype=torch.uint8))
    >>> metric.compute().item()
    0.25
    """

    def _figure(self, p: NDArray[Any], share: NDArray[Any], number: int) -> float:
        return brier(p, share)


def _pairs(first: Batch, references: Batch) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """The maps of each image, (N, *spatial) and (M, *spatial)."""
    if len(first) != len(references):
        raise ValueError(f"{len(first)} images have {len(references)} references.")
    pairs = [(_array(a), _array(b)) for a, b in zip(first, references, strict=True)]
    for maps, raters in pairs:
        if maps.shape[1:] != raters.shape[1:] or min(len(maps), len(raters)) < 1:
            rule = "maps (N, *spatial) and references (M, *spatial) must be on one grid"
            raise ValueError(f"{rule}. Got {maps.shape} and {raters.shape}.")
    return pairs


def _array(maps: Tensor) -> NDArray[Any]:
    return np.asarray(maps.detach().cpu().numpy())
