"""Fit a scaling, and what guarantees need, to segmented cases with references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.calibration import conformal
from medsegdiff.calibration.fitted import Calibration
from medsegdiff.calibration.scaling import Scaling, fit_scaling
from medsegdiff.calibration.voxels import CaseVoxels
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import ScalingMethod

MOST_VOXELS = 100_000
"""Voxels that the scaling is fitted to; of more, so many are drawn."""

SEED = 0


def fit_method(
    cases: Sequence[CaseVoxels], method: ScalingMethod, most: int = MOST_VOXELS
) -> Scaling:
    """The scaling of least negative log-likelihood over all voxels of the images.

    Args:
        cases: Cases to fit to, one at least.
        method: ``none`` gives the scaling that changes nothing.
        most: Greatest number of voxels to fit to.

    Raises:
        InputError: no rater has marked anything.
    """
    k = len(cases[0].probability)
    if method == "none":
        return Scaling.identity(k)
    if not any((case.share[1:] > 0).any() for case in cases):
        rule = "no rater has marked anything in any case"
        raise InputError("calibration", rule, "Use cases with references that are not empty")
    return fit_scaling(*drawn_voxels(cases, most), method)


def fit_calibration(
    cases: Sequence[CaseVoxels],
    slugs: Sequence[str],
    method: ScalingMethod = "vector",
    most: int = MOST_VOXELS,
) -> Calibration:
    """Scaling, risks and volume scores of some cases.

    The scaling is fitted on the same cases as the thresholds. Strictly they should be others; but
    it has 2 K - 1 numbers at most, and ``coverage.split_coverage``, which repeats all of it on a
    part of the cases, measures what that costs.

    Args:
        cases: Cases to fit to, one at least.
        slugs: Names of the foreground classes, in the order of their numbers.
        method: Method of the scaling.
        most: Greatest number of voxels that the scaling is fitted to.

    Raises:
        InputError: no rater has marked anything.
    """
    scaling = fit_method(cases, method, most)
    missed: dict[str, list[Any]] = {slug: [] for slug in slugs}
    wrong: dict[str, list[Any]] = {slug: [] for slug in slugs}
    scores: dict[str, list[float]] = {slug: [] for slug in slugs}
    shifts = []
    for case in cases:
        scaled = scaling(case.probability)
        shifts.append(shift(case.probability, scaled, case.weight))
        for value, slug in enumerate(slugs, start=1):
            reference = case.reference == value
            curves = conformal.risk_curves(scaled[value], reference, case.weight)
            missed[slug].append(curves[0])
            wrong[slug].append(curves[1])
            expected = conformal.expected_volume(scaled[value], case.weight)
            volume = float(case.weight[reference].sum())
            scores[slug].append(conformal.volume_score(volume, *expected))
    return Calibration(
        method,
        scaling,
        len(cases),
        {slug: tuple(np.mean(curves, axis=0).tolist()) for slug, curves in missed.items()},
        {slug: tuple(np.mean(curves, axis=0).tolist()) for slug, curves in wrong.items()},
        {slug: tuple(sorted(of_class)) for slug, of_class in scores.items()},
        largest_shift=float(max(shifts)),
    )


def shift(
    before: NDArray[Any], after: NDArray[Any], weight: NDArray[np.float64] | float = 1.0
) -> float:
    """How far a scaling moves the foreground of a case, relative to what was there.

    Args:
        before: Probabilities (K, ...), background first.
        after: Scaled probabilities (K, ...).
        weight: Number of voxels that each stands for.

    Returns:
        Sum of the absolute changes of foreground probability over its sum before, plus a voxel.
    """
    moved, there = shift_sums(before, after, weight)
    return moved / (there + 1.0)


def shift_sums(
    before: NDArray[Any], after: NDArray[Any], weight: NDArray[np.float64] | float = 1.0
) -> tuple[float, float]:
    """Sum of the absolute changes of foreground probability, and its sum before, in voxels."""
    first, last = (1.0 - p[0].astype(np.float64) for p in (before, after))
    return float((np.abs(last - first) * weight).sum()), float((first * weight).sum())


def drawn_voxels(
    cases: Sequence[CaseVoxels], most: int = MOST_VOXELS
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """(K, V) probabilities and (K, V) shares of voxels of all the images, and (V,) their weights.

    Each case counts as much as any other: its weights are relative to the size of its region, so
    that a large field of background counts by what goes wrong in it. Of many voxels some are drawn,
    evenly from all cases.
    """
    each = max(1, most // len(cases))
    rng, drawn = np.random.default_rng(SEED), []
    for case in cases:
        n = len(case.weight)
        some = np.sort(rng.permutation(n)[:each])
        weight = case.weight[some] * (n / len(some)) / case.region_size
        drawn.append((case.probability[:, some], case.share[:, some], weight))
    probabilities, shares, weights = zip(*drawn, strict=True)
    return np.concatenate(probabilities, 1), np.concatenate(shares, 1), np.concatenate(weights)
