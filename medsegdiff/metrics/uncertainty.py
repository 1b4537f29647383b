"""Figures of uncertainty: whether it is high where the mask is wrong, and in poor cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

PATCH = 2
"""Side of a patch of PAvPU, in voxels."""


def error_auroc(uncertainty: NDArray[Any], error: NDArray[Any]) -> float:
    """Area under the ROC curve of an uncertainty map as a detector of wrong voxels.

    The probability that a wrong voxel has more uncertainty than a right one, a tie counting half
    (Mann and Whitney): 0.5 is chance, 1 is perfect.

    Args:
        uncertainty: Uncertainty map of any shape, higher is less certain.
        error: Map that is non-zero where the mask is wrong, same shape.

    Returns:
        In [0, 1]; NaN where all voxels are right, or all wrong.

    >>> round(error_auroc(np.array([0.0, 0.1, 0.2, 0.2]), np.array([0, 0, 0, 1])), 3)
    0.833
    """
    wrong = np.asarray(error, dtype=bool)
    positive, negative = uncertainty[wrong], np.sort(uncertainty[~wrong])
    if positive.size == 0 or negative.size == 0:
        return float("nan")
    below = np.searchsorted(negative, positive, side="left").sum(dtype=np.float64)
    not_above = np.searchsorted(negative, positive, side="right").sum(dtype=np.float64)
    return float((below + not_above) / 2 / positive.size / negative.size)


def error_auprc(uncertainty: NDArray[Any], error: NDArray[Any]) -> float:
    """Area under the precision-recall curve of an uncertainty map as a detector of wrong voxels.

    The average precision, sum over thresholds of (R_i - R_{i-1}) P_i, which does not interpolate;
    voxels of equal uncertainty enter together. Chance is the share of wrong voxels.

    Args:
        uncertainty: Uncertainty map of any shape, higher is less certain.
        error: Map that is non-zero where the mask is wrong, same shape.

    Returns:
        In [0, 1]; NaN where all voxels are right.
    """
    marked, found, wrong = _found_by_threshold(uncertainty, error)
    if wrong == 0:
        return float("nan")
    return float(np.sum(np.diff(found, prepend=0) * found / marked) / wrong)


def error_overlap(uncertainty: NDArray[Any], error: NDArray[Any]) -> float:
    """Best Dice of the wrong voxels with those above a threshold of uncertainty, over thresholds.

    Args:
        uncertainty: Uncertainty map of any shape, higher is less certain.
        error: Map that is non-zero where the mask is wrong, same shape.

    Returns:
        In [0, 1]; NaN where all voxels are right. The threshold is the best one for this case, so
        it is an upper bound of what one chosen beforehand reaches.
    """
    marked, found, wrong = _found_by_threshold(uncertainty, error)
    return float(np.max(2 * found / (marked + wrong))) if wrong else float("nan")


def _found_by_threshold(
    uncertainty: NDArray[Any], error: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Voxels at or above each threshold, from the highest; the wrong ones of these, and of all."""
    order = np.argsort(uncertainty, axis=None)[::-1]
    u = uncertainty.ravel()[order]
    found = np.cumsum(np.asarray(error, dtype=bool).ravel()[order], dtype=np.int64)
    last = np.flatnonzero(np.append(u[1:] != u[:-1], True))
    return last + 1, found[last], int(found[-1])


def pavpu(
    uncertainty: NDArray[Any],
    error: NDArray[Any],
    patch: Sequence[int] | None = None,
    level: float = 0.5,
) -> float:
    """Patch accuracy against patch uncertainty (Mukhoti and Gal, 2018).

    The share of patches that are accurate and certain, or inaccurate and uncertain. A patch is
    accurate where more than half of its voxels are right, and uncertain where its mean uncertainty
    lies above ``lowest + level * (highest - lowest)``, of the patches of this image.

    Args:
        uncertainty: Uncertainty map of any shape, higher is less certain.
        error: Map that is non-zero where the mask is wrong, same shape.
        patch: Size of a patch along each axis, in voxels; None: 2. Patches do not overlap, and
            those at the end of an axis may be smaller.
        level: Level of the threshold, in [0, 1].

    Returns:
        In [0, 1]. The share of accurate patches where the uncertainty is constant.
    """
    sides = patch or (PATCH,) * uncertainty.ndim
    doubt = _patch_means(uncertainty.astype(np.float64), sides)
    right = _patch_means(1.0 - np.asarray(error, dtype=bool), sides)
    uncertain = doubt > doubt.min() + level * np.ptp(doubt)
    return float(np.mean((right > 0.5) != uncertain))


def _patch_means(values: NDArray[np.float64], sides: Sequence[int]) -> NDArray[np.float64]:
    size = np.ones_like(values)
    for axis, side in enumerate(sides):
        starts = np.arange(0, values.shape[axis], side)
        values, size = (np.add.reduceat(array, starts, axis=axis) for array in (values, size))
    return values / size


def correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Pearson correlation over voxels of two maps, such as uncertainty and error (0 or 1).

    Args:
        first: Map of any shape.
        second: Map of the same shape.

    Returns:
        In [-1, 1]; NaN where either is constant.
    """
    a, b = (np.asarray(values, dtype=np.float64).ravel() for values in (first, second))
    if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def mutual_information(members: NDArray[Any]) -> NDArray[np.float64]:
    """Mutual information: entropy of the members' mean less their mean entropy, in nats.

    Houlsby et al. (2011), BALD. It needs the members' probabilities; label maps have no entropy of
    their own, and would give that of the votes.

    Args:
        members: Probability (N, K, ...) of each member in [0, 1], summing to 1 over K classes.

    Returns:
        Information (...) in [0, ln K].
    """
    p = np.asarray(members, dtype=np.float64)
    information = entr(p.mean(axis=0)).sum(axis=0) - entr(p).sum(axis=1).mean(axis=0)
    return np.maximum(information, 0.0)


def case_uncertainty(mean: NDArray[Any], variance: NDArray[Any]) -> float:
    """One number for a case and class: summed variance over expected volume.

    Dividing by the volume lets cases of different size be compared. 0 where nothing is expected.

    Args:
        mean: Mean probability of the class in [0, 1], any shape.
        variance: Variance of the members' probability in [0, 0.25], same shape.
    """
    expected = float(mean.sum(dtype=np.float64))
    return float(variance.sum(dtype=np.float64)) / expected if expected > 0.0 else 0.0


def risk_coverage(
    uncertainty: NDArray[Any], risk: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean risk of the most certain cases, for every share of the cases that is kept.

    Args:
        uncertainty: Uncertainty (n,) of each case. Cases of equal uncertainty share their mean
            risk, so that their order does not matter.
        risk: Risk (n,) of each case, here 1 - Dice.

    Returns:
        coverage: Share (n,) of the cases kept: 1/n, 2/n, ... 1.
        mean_risk: Mean risk (n,) of the cases kept.
    """
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    shared = (np.bincount(group, weights=risk) / size)[group]
    ordered = shared[np.argsort(uncertainty, kind="stable")]
    kept = np.arange(1, len(ordered) + 1)
    return kept / max(len(ordered), 1), np.cumsum(ordered) / kept


def aurc(uncertainty: NDArray[Any], risk: NDArray[Any]) -> float:
    """Area under the risk-coverage curve (Geifman and El-Yaniv, 2017): its mean; NaN if no case.

    Args:
        uncertainty: Uncertainty (n,) of each case.
        risk: Risk (n,) of each case, here 1 - Dice.
    """
    _, mean_risk = risk_coverage(uncertainty, risk)
    return float(mean_risk.mean()) if mean_risk.size else float("nan")


def e_aurc(uncertainty: NDArray[Any], risk: NDArray[Any]) -> float:
    """AURC in excess of that of the best order, the least risk first (Geifman et al., 2019).

    It does not depend on the quality of the masks as AURC does. 0 is a perfect order.

    Args:
        uncertainty: Uncertainty (n,) of each case.
        risk: Risk (n,) of each case, here 1 - Dice.
    """
    return aurc(uncertainty, risk) - aurc(risk, risk)
