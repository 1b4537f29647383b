"""Thresholds and intervals with a guarantee on average over cases like those of the fit.

Conformal risk control (Angelopoulos, Bates, Fisch, Lei, Schuster, ICLR 2024) for masks, and split
conformal prediction (Papadopoulos et al. 2002; Lei et al. 2018) for volumes. The unit is the case:
a guarantee holds in expectation over a new case that is exchangeable with the n that were used.
Libraries such as MAPIE wrap an estimator of single values, which does not fit masks.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = np.arange(1, 200) / 200.0
"""Thresholds (L,) on the calibrated probability, 0.005 to 0.995, fixed beforehand."""

Floats = NDArray[np.float64]


def risk_curves(
    probability: NDArray[Any],
    reference: NDArray[np.bool_],
    weight: NDArray[np.float64] | None = None,
) -> tuple[Floats, Floats]:
    """Missed and wrong shares of the masks {p >= threshold} of one case and class.

    Args:
        probability: Calibrated probability of the class, any shape.
        reference: Whether the voxel is of the class, same shape.
        weight: Number of voxels that each stands for, same shape; 1 if None.

    Returns:
        missed: Share (L,) of the reference outside the mask; 0 where the reference is empty.
        wrong: Share (L,) of the mask outside the reference; 0 where the mask is empty. It is made
            monotone, as the theory requires: the greatest share at this or a higher threshold.
    """
    weight = np.ones(probability.shape) if weight is None else weight
    marked = _at_least(probability, weight)
    right = _at_least(probability[reference], weight[reference])
    size = float(weight[reference].sum())
    missed = (1.0 - right / size).clip(0.0, 1.0) if size else np.zeros(len(THRESHOLDS))
    wrong = ((marked - right) / np.where(marked > 0.0, marked, 1.0)).clip(0.0, 1.0)
    return missed, np.maximum.accumulate(wrong[::-1])[::-1]


def _at_least(probability: NDArray[Any], weight: NDArray[np.float64]) -> Floats:
    """Number (L,) of voxels at or above each threshold."""
    above = probability >= THRESHOLDS[0]
    passed = np.searchsorted(THRESHOLDS, probability[above].astype(np.float64), side="right")
    counts = np.bincount(passed, weights=weight[above], minlength=len(THRESHOLDS) + 1)
    return np.asarray(counts[:0:-1].cumsum()[::-1])


def controlled(risk: NDArray[Any], n: int, alpha: float) -> NDArray[np.bool_]:
    """Whether (L,) n / (n + 1) R + 1 / (n + 1) <= alpha (Angelopoulos et al. 2024, eq. 4).

    Args:
        risk: Mean loss R (L,) of n cases at each threshold; losses are in [0, 1].
        n: Number of cases.
        alpha: Bound on the expected loss of a new case.
    """
    bounded: NDArray[np.bool_] = (n * np.asarray(risk) + 1.0) / (n + 1) <= alpha
    return bounded


def outer_threshold(missed: NDArray[Any], n: int, alpha: float) -> float:
    """The greatest threshold whose mask misses at most alpha on average; 0 (all) if none does.

    Args:
        missed: Mean share (L,) of the reference outside the mask at each threshold.
        n: Number of cases.
        alpha: Bound on the expected share of a new case.

    >>> outer_threshold(np.arange(199) / 1000, 99, 0.1)
    0.455
    """
    good = THRESHOLDS[controlled(missed, n, alpha)]
    return float(good.max()) if good.size else 0.0


def inner_threshold(wrong: NDArray[Any], n: int, alpha: float) -> float | None:
    """The least threshold whose mask is wrong in at most alpha on average; None (empty) if none.

    Args:
        wrong: Mean share (L,) of the mask outside the reference at each threshold.
        n: Number of cases.
        alpha: Bound on the expected share of a new case.
    """
    good = THRESHOLDS[controlled(wrong, n, alpha)]
    return float(good.min()) if good.size else None


def expected_volume(
    probability: NDArray[Any], weight: NDArray[np.float64] | None = None
) -> tuple[float, float]:
    """Expected number of voxels of a class, and the doubt about it.

    Voxels below the lowest threshold do not count: in a large image they would add up.

    Args:
        probability: Calibrated probability of the class, any shape.
        weight: Number of voxels that each stands for, same shape; 1 if None.

    Returns:
        volume: Sum of p, in voxels.
        doubt: Sum of p (1 - p), plus 1: the volume of the uncertain rim, in voxels. It grows with
            the rim's width and surface.
    """
    above = probability >= THRESHOLDS[0]
    p = probability[above].astype(np.float64)
    w = 1.0 if weight is None else weight[above]
    return float((w * p).sum()), float((w * p * (1.0 - p)).sum()) + 1.0


def volume_score(volume: float, expected: float, doubt: float) -> float:
    """Distance of the true volume from the expected one, in units of the doubt about it."""
    return abs(volume - expected) / doubt


def volume_interval(
    scores: NDArray[Any], alpha: float, expected: float, doubt: float
) -> tuple[float, float | None]:
    """Interval that holds the true volume of a share 1 - alpha of new cases.

    Args:
        scores: Scores (n,) of the cases that were used, ascending.
        alpha: Share of cases that may lie outside.
        expected: Expected volume of the new case, in any unit.
        doubt: Doubt about it (``expected_volume``), in the same unit.

    Returns:
        Low, at least 0, and high; None for no upper limit, where n is too small for alpha.

    >>> volume_interval(np.arange(1.0, 20.0), 0.1, 50.0, 2.0)
    (14.0, 86.0)
    """
    rank = ceil(round((len(scores) + 1) * (1.0 - alpha), 9))
    if rank > len(scores):
        return 0.0, None
    margin = float(scores[rank - 1]) * doubt
    return max(0.0, expected - margin), expected + margin
