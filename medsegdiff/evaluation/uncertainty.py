"""Is the uncertainty worth anything: is it high where the mask is wrong, and in the poor cases?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def error_auroc(uncertainty: NDArray[Any], error: NDArray[Any]) -> float:
    """Area under the ROC curve of an uncertainty map that looks for the wrong voxels.

    The probability that a wrong voxel has more uncertainty than a right one, a tie counting half
    (Mann and Whitney): 0.5 is chance, 1 is perfect.

    Args:
        uncertainty: any shape, higher is less certain.
        error: non-zero where the mask is wrong, same shape.

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


def error_correlation(uncertainty: NDArray[Any], error: NDArray[Any]) -> float:
    """Pearson correlation over voxels of an uncertainty map with the error (0 or 1).

    Args:
        uncertainty: any shape.
        error: non-zero where the mask is wrong, same shape.

    Returns:
        In [-1, 1]; NaN where either is constant.
    """
    u = uncertainty.astype(np.float64).ravel()
    e = np.asarray(error, dtype=bool).ravel().astype(np.float64)
    if np.ptp(u) == 0.0 or np.ptp(e) == 0.0:
        return float("nan")
    return float(np.corrcoef(u, e)[0, 1])


def case_uncertainty(mean: NDArray[Any], variance: NDArray[Any]) -> float:
    """One number for a case and class: summed variance over expected volume.

    Dividing by the volume lets cases of different size be compared. 0 where nothing is expected.

    Args:
        mean: mean probability of the class, in [0, 1].
        variance: of the members' probability, in [0, 0.25], same shape.
    """
    expected = float(mean.sum(dtype=np.float64))
    return float(variance.sum(dtype=np.float64)) / expected if expected > 0.0 else 0.0


def risk_coverage(
    uncertainty: NDArray[Any], risk: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean risk of the most certain cases, for every share of the cases that is kept.

    Args:
        uncertainty: (n,) of each case. Cases of equal uncertainty share their mean risk, so that
            their order does not matter.
        risk: (n,) of each case, here 1 - Dice.

    Returns:
        coverage: (n,) 1/n, 2/n, ... 1.
        mean_risk: (n,) of the cases kept.
    """
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    shared = (np.bincount(group, weights=risk) / size)[group]
    ordered = shared[np.argsort(uncertainty, kind="stable")]
    kept = np.arange(1, len(ordered) + 1)
    return kept / max(len(ordered), 1), np.cumsum(ordered) / kept


def aurc(uncertainty: NDArray[Any], risk: NDArray[Any]) -> float:
    """Area under the risk-coverage curve (Geifman and El-Yaniv, 2017): its mean; NaN if no case.

    Args:
        uncertainty: (n,) of each case.
        risk: (n,) of each case, here 1 - Dice.
    """
    _, mean_risk = risk_coverage(uncertainty, risk)
    return float(mean_risk.mean()) if mean_risk.size else float("nan")
