"""Calibration error: whether 80 % of the voxels with a probability of 80 % are of the class.

Each foreground class is judged by itself: its mean probability against "the voxel is of this
class". With several raters that is "a rater chosen at random marks this voxel", which the share of
raters estimates; a majority would turn a share of 60 % into certainty, and count a correct 60 % as
wrong. Bins have equal width; their counts are sums, so those of several cases may be added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BINS = 15
ROI_VOXELS = 5
NLL_CLAMP = 1e-7


@dataclass(frozen=True, eq=False)
class Reliability:
    """Sums over the voxels that fell into each of B bins of equal width over [0, 1].

    Attributes:
        count: Number of voxels (B,) in each bin.
        probability: Sum (B,) of their probabilities.
        positive: Number (B,) of them that were of the class, or the sum of the raters' shares.
    """

    count: NDArray[np.int64]
    probability: NDArray[np.float64]
    positive: NDArray[np.float64]

    def __add__(self, other: Reliability) -> Reliability:
        """The bins of both sets of voxels together."""
        return Reliability(
            self.count + other.count,
            self.probability + other.probability,
            self.positive + other.positive,
        )

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Mean probability (B,) in each bin, NaN in an empty one."""
        return _divide(self.probability, self.count)

    @property
    def frequency(self) -> NDArray[np.float64]:
        """Share (B,) of the voxels of each bin that were of the class, NaN in an empty bin."""
        return _divide(self.positive, self.count)

    @property
    def ece(self) -> float:
        """Expected calibration error in [0, 1]: mean gap, weighted by count; NaN if no voxel.

        Naeini et al. (2015), for one class against the rest.
        """
        total = int(self.count.sum())
        gap = np.abs(self.probability - self.positive).sum()
        return float(gap / total) if total else float("nan")

    @property
    def ace(self) -> float:
        """Average calibration error in [0, 1] (Neumann et al. 2018); NaN if no voxel.

        The mean gap over the bins that hold a voxel: few voxels weigh as much as many.
        """
        gaps = self._gaps
        return float(gaps.mean()) if gaps.size else float("nan")

    @property
    def mce(self) -> float:
        """Maximum calibration error in [0, 1]: the largest gap of a bin; NaN if no voxel.

        Naeini et al. (2015). A bin of one voxel counts, so it is noisy where voxels are few.
        """
        gaps = self._gaps
        return float(gaps.max()) if gaps.size else float("nan")

    @property
    def _gaps(self) -> NDArray[np.float64]:
        gaps = np.abs(self.confidence - self.frequency)
        return gaps[self.count > 0]


def reliability(
    probability: NDArray[Any],
    reference: NDArray[Any],
    region: NDArray[np.bool_] | None = None,
    bins: int = BINS,
    weight: NDArray[np.float64] | None = None,
) -> Reliability:
    """Counts of voxels by their probability.

    Args:
        probability: Probability of the class in [0, 1], any shape.
        reference: Reference in [0, 1], same shape: 0 or 1, or the share of raters.
        region: Mask of the voxels to count, same shape; None: all voxels.
        bins: Number of bins; bin b holds b / bins <= p < (b + 1) / bins, the last one also 1.
        weight: Number of voxels that each stands for, same shape; 1 if None.

    >>> round(reliability(np.array([0.1, 0.9]), np.array([0, 1]), bins=2).ece, 6)
    0.1
    """
    inside = np.ones(probability.shape, bool) if region is None else region
    p = probability[inside].astype(np.float64)
    y = reference[inside].astype(np.float64)
    w = np.ones(p.shape) if weight is None else weight[inside]
    index = np.minimum((p * bins).astype(np.int64), bins - 1)
    return Reliability(
        np.rint(np.bincount(index, weights=w, minlength=bins)).astype(np.int64),
        np.bincount(index, weights=w * p, minlength=bins).astype(np.float64),
        np.bincount(index, weights=w * y, minlength=bins).astype(np.float64),
    )


def region_of_interest(reference: NDArray[Any], voxels: int = ROI_VOXELS) -> NDArray[np.bool_]:
    """The reference, dilated by face neighbours; an empty one stays empty.

    Args:
        reference: Mask (X, Y[, Z]), non-zero inside; with several raters the union of their masks.
        voxels: Number of dilations, by one voxel each.
    """
    mask = np.asarray(reference, dtype=bool)
    return np.asarray(ndimage.binary_dilation(mask, iterations=voxels)) if voxels else mask


def brier(probability: NDArray[Any], reference: NDArray[Any]) -> float:
    """Mean squared difference of probability and reference, in [0, 1].

    Args:
        probability: Probability of the class in [0, 1], any shape.
        reference: Reference in [0, 1], same shape: 0 or 1, or the share of raters.
    """
    difference = probability.astype(np.float64) - reference
    return float(np.mean(difference * difference))


def nll(
    probability: NDArray[Any],
    reference: NDArray[Any],
    weight: NDArray[np.float64] | None = None,
) -> float:
    """Mean negative log-likelihood of "is of the class", in nats.

    Args:
        probability: Probability of the class in [0, 1], any shape; clamped to [1e-7, 1 - 1e-7].
        reference: Reference in [0, 1], same shape: 0 or 1, or the share of raters.
        weight: Number of voxels that each stands for, same shape; 1 if None.
    """
    p = np.clip(probability.astype(np.float64), NLL_CLAMP, 1.0 - NLL_CLAMP)
    of_voxels = reference * np.log(p) + (1.0 - reference) * np.log1p(-p)
    return float(-np.average(of_voxels, weights=weight))


def _divide(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    result = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
