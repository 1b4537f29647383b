"""A set of sampled masks against a set of raters' masks of the same image.

Distances are d = 1 - IoU; both empty d = 0, one empty d = 1. Matrices of IoU are computed once
(:func:`pairwise_iou`), and every measure is a short function of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from medsegdiff.metrics.overlap import overlap
from medsegdiff.metrics.uncertainty import correlation

Matrix = NDArray[np.float64]


def pairwise_iou(first: NDArray[Any], second: NDArray[Any]) -> Matrix:
    """IoU of each mask of one set with each of another.

    Args:
        first: Masks (A, ...) of one class, non-zero inside.
        second: Masks (B, ...) on the same grid.

    Returns:
        Matrix (A, B) in [0, 1]; 1 where both masks are empty.
    """
    intersection, sizes = _intersections(first, second)
    union = sizes - intersection
    return np.divide(intersection, union, out=np.ones_like(union), where=union > 0)


def mean_iou(first: NDArray[Any], second: NDArray[Any], classes: Sequence[int]) -> Matrix:
    """IoU of each label map of one set with each of another, averaged over classes.

    Args:
        first: Label maps (A, ...).
        second: Label maps (B, ...) on the same grid.
        classes: Class numbers of the foreground, at least one.

    Returns:
        Matrix (A, B) in [0, 1].
    """
    return np.mean([pairwise_iou(first == k, second == k) for k in classes], axis=0)


def pairwise_dice(first: NDArray[Any], second: NDArray[Any]) -> Matrix:
    """Dice of each mask of one set with each of another: see :func:`pairwise_iou`."""
    intersection, sizes = _intersections(first, second)
    return np.divide(2 * intersection, sizes, out=np.ones_like(sizes), where=sizes > 0)


def ged2(iou_sr: Matrix, iou_ss: Matrix, iou_rr: Matrix) -> float:
    """Squared generalised energy distance, 2 E[d(S,R)] - E[d(S,S')] - E[d(R,R')].

    As a V-statistic: pairs of a mask with itself are included (Kohl et al., 2018). It depends on
    the number of samples.

    Args:
        iou_sr: IoU (N, M) of samples with raters.
        iou_ss: IoU (N, N) of samples with each other.
        iou_rr: IoU (M, M) of raters with each other.
    """
    return 2 * diversity(iou_sr) - diversity(iou_ss) - diversity(iou_rr)


def hm_iou(iou_sr: Matrix) -> float:
    """Mean IoU under the best matching of samples to raters, in [0, 1].

    Both sets are repeated to their least common multiple (Kohl et al., 2019).

    Args:
        iou_sr: IoU (N, M) of samples with raters.
    """
    n, m = iou_sr.shape
    size = math.lcm(n, m)
    full = np.tile(iou_sr, (size // n, size // m))
    rows, columns = linear_sum_assignment(1.0 - full)
    return float(full[rows, columns].mean())


def d_max(dice_sr: Matrix) -> float:
    """Mean over raters of the best Dice among the samples (Rahman et al., 2023), in [0, 1].

    Args:
        dice_sr: Dice (N, M) of samples with raters.
    """
    return float(dice_sr.max(axis=0).mean())


def diversity(iou: Matrix) -> float:
    """Mean distance 1 - IoU of all pairs, those of a mask with itself included, in [0, 1].

    Args:
        iou: IoU (N, N) of samples with each other, or (N, M) of two sets.
    """
    return float((1.0 - iou).mean())


def collective_insight(samples: NDArray[Any], raters: NDArray[Any]) -> float:
    """CI = 3 S_c D_max D_a / (S_c + D_max + D_a), in [0, 1] (Rahman et al., 2023).

    S_c is the recall of the union of the raters' masks by that of the samples: 1 where both are
    empty, 0 where one is. D_max and D_a: :func:`d_max`, :func:`diversity_agreement`.

    Args:
        samples: Masks (N, ...) of one class, by sample.
        raters: Masks (M, ...) on the same grid, by rater.

    Returns:
        NaN where there is only one sample or rater.
    """
    s_c = overlap(np.any(samples, axis=0), np.any(raters, axis=0))["recall"]
    best = d_max(pairwise_dice(samples, raters))
    d_a = diversity_agreement(samples, raters)
    total = s_c + best + d_a
    return 3 * s_c * best * d_a / total if total != 0.0 else 0.0


def diversity_agreement(samples: NDArray[Any], raters: NDArray[Any]) -> float:
    """D_a = 1 - (|dV_min| + |dV_max|) / 2, in [0, 1] (Rahman et al., 2023).

    V_min and V_max are the least and the greatest variance, over the voxels, of the difference of
    two masks of a set; dV is that of the samples less that of the raters. Pairs of a mask with
    itself are left out: with them V_min is 0 for any set. A variance is a share of the voxels of
    the whole grid, so where the structure is small all sets agree.

    Args:
        samples: Masks (N, ...) of one class, by sample.
        raters: Masks (M, ...) on the same grid, by rater.

    Returns:
        NaN where there is only one sample or rater.
    """
    least, greatest = np.abs(np.subtract(_variances(samples), _variances(raters)))
    return float(1.0 - (least + greatest) / 2)


def s_ncc(samples: NDArray[Any], raters: NDArray[Any]) -> float:
    """S_NCC of PHiSeg in [-1, 1]: samples differ where raters do (Baumgartner et al., 2019).

    For each rater y the correlation, over voxels, of the expected cross-entropies
    E_s[CE(mean of s, s)] and E_s[CE(y, s)]; then the mean over the raters. Samples are label
    maps here, and a voxel of another class costs the same -ln(1e-8) everywhere. So both are linear
    in 1 - sum_c p_c^2 and 1 - p_y, p being the samples' votes, whatever the clamp.

    Args:
        samples: Label maps (N, ...), or masks of one class, by sample.
        raters: Label maps (M, ...) on the same grid, by rater.

    Returns:
        NaN where a map has no variance: for one class, where all samples are alike.
    """
    votes = (np.mean(samples == value, axis=0) for value in np.unique(samples))
    within = 1.0 - sum(np.square(p) for p in votes)
    between = (np.mean(samples != rater, axis=0) for rater in raters)
    return float(np.mean([correlation(within, one) for one in between]))


def sample_set_metrics(
    samples: NDArray[Any], raters: NDArray[Any], classes: Sequence[int]
) -> dict[str, list[float]]:
    """Every measure of this file, for the classes together and for each class.

    Args:
        samples: Label maps (N, ...), by sample.
        raters: Label maps (M, ...) on the same grid, by rater.
        classes: Class numbers of the K foreground classes.

    Returns:
        For each of ``ged2, hm_iou, d_max, ci, s_ncc, diversity, rater_diversity`` 1 + K values:
        first that of all classes, then those of each. The first is of the IoU or Dice averaged over
        the classes; of CI it is the mean, and S_NCC is of the whole label maps.
    """
    pairs = [(samples == c, raters == c) for c in classes]
    sr = _with_average([pairwise_iou(s, r) for s, r in pairs])
    ss = _with_average([pairwise_iou(s, s) for s, _ in pairs])
    rr = _with_average([pairwise_iou(r, r) for _, r in pairs])
    best = _with_average([pairwise_dice(s, r) for s, r in pairs])
    ci = [collective_insight(s, r) for s, r in pairs]
    return {
        "ged2": [ged2(*matrices) for matrices in zip(sr, ss, rr, strict=True)],
        "hm_iou": [hm_iou(matrix) for matrix in sr],
        "d_max": [d_max(matrix) for matrix in best],
        "ci": [float(np.mean(ci)), *ci],
        "s_ncc": [s_ncc(samples, raters), *(s_ncc(s, r) for s, r in pairs)],
        "diversity": [diversity(matrix) for matrix in ss],
        "rater_diversity": [diversity(matrix) for matrix in rr],
    }


def _variances(masks: NDArray[Any]) -> tuple[float, float]:
    """Least and greatest variance of the difference of two of the masks; NaN with one mask."""
    if len(masks) < 2:
        return float("nan"), float("nan")
    voxels = masks[0].size
    intersection, sizes = _intersections(masks, masks)
    size = np.diagonal(intersection)
    mean = (size[:, None] - size[None, :]) / voxels
    variance = (sizes - 2 * intersection) / voxels - mean**2
    pairs = variance[np.triu_indices(len(masks), k=1)]
    return float(pairs.min()), float(pairs.max())


def _with_average(by_class: list[Matrix]) -> list[Matrix]:
    return [np.mean(by_class, axis=0), *by_class]


def _intersections(first: NDArray[Any], second: NDArray[Any]) -> tuple[Matrix, Matrix]:
    """Sizes (A, B) of the intersections, and sums (A, B) of both masks' sizes."""
    a = np.asarray(first, dtype=bool).reshape(len(first), -1)
    b = np.asarray(second, dtype=bool).reshape(len(second), -1)
    # Few voxels are in any mask: the product of the matrices need not see the others.
    inside = a.any(axis=0) | b.any(axis=0)
    x, y = a[:, inside].astype(np.float64), b[:, inside].astype(np.float64)
    return x @ y.T, x.sum(axis=1)[:, None] + y.sum(axis=1)[None, :]
