"""Check a calibration on cases that were left out of its fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from medsegdiff.calibration.fit import CaseVoxels, drawn_voxels, fit_calibration
from medsegdiff.calibration.fitted import Calibration
from medsegdiff.calibration.scaling import Scaling, fit_scaling
from medsegdiff.core.types import ScalingMethod
from medsegdiff.metrics import overlap as metrics
from medsegdiff.metrics.calibration_error import nll, reliability
from medsegdiff.metrics.guaranteed import missed_fraction, wrong_fraction
from medsegdiff.metrics.means import mean_defined

LEVELS = (0.9, 0.95)
SPLITS = 200
SHARE = 0.8
FOLDS = 5
SEED = 0
FIGURES = (
    "outer_holds",
    "inner_right",
    "volume_covered",
    "volume_width",
    "outer_size",
    "inner_size",
)

ByClass = dict[str, float]
Splits = Callable[[Sequence[int]], Iterable[int]]
"""Function that yields the numbers one by one, and may show how many are done."""


def split_coverage(
    cases: Sequence[CaseVoxels],
    slugs: Sequence[str],
    method: ScalingMethod = "vector",
    *,
    levels: Sequence[float] = LEVELS,
    splits: int = SPLITS,
    share: float = SHARE,
    start: Scaling | None = None,
    progress: Splits = iter,
) -> dict[str, dict[str, ByClass]]:
    """Figures on cases that were left out, on average over random splits of the patients.

    Each split fits everything, the scaling included, on one part and evaluates the other.

    Args:
        cases: Cases of at least two patients.
        slugs: Names of the foreground classes.
        method: Method of the scaling.
        levels: Levels to check, in (0, 1).
        splits: Number of splits.
        share: Share of the patients to fit on, in (0, 1).
        start: Scaling at which the fits begin, to save time.
        progress: Wrapper of the splits' numbers.

    Returns:
        Values by level (as text), figure and class:

        - ``outer_holds``: mean share of the reference in the outer mask;
        - ``inner_right``: mean share of the inner mask that is right;
        - ``volume_covered``: share of cases whose volume lies in its interval;
        - ``volume_width``: mean width over the true volume, of finite intervals;
        - ``outer_size``, ``inner_size``: mean volume of the masks over the true one.
    """
    rng, patients = np.random.default_rng(SEED), sorted({case.patient for case in cases})
    n_fit = min(max(1, round(share * len(patients))), len(patients) - 1)
    found: dict[str, dict[str, dict[str, list[float]]]] = {
        f"{level:g}": {f: {s: [] for s in slugs} for f in FIGURES} for level in levels
    }
    for _ in progress(range(splits)):
        inside = set(rng.permutation(patients)[:n_fit].tolist())
        fitted = fit_calibration([c for c in cases if c.patient in inside], slugs, method, start)
        for case in cases:
            if case.patient not in inside:
                scaled = fitted.scaling(case.probability)
                for level in levels:
                    _add_figures(found[f"{level:g}"], fitted, level, case, scaled)
    return {
        level: {
            f: {s: mean_defined(values) for s, values in by.items()} for f, by in figures.items()
        }
        for level, figures in found.items()
    }


def _add_figures(
    into: dict[str, dict[str, list[float]]],
    fitted: Calibration,
    level: float,
    case: CaseVoxels,
    scaled: NDArray[np.float32],
) -> None:
    """Append the figures of a fit on one case, whose probabilities are scaled already."""
    for value, (slug, one) in enumerate(fitted.guarantee(level).items(), start=1):
        reference = case.reference == value
        inner, outer = one.masks(scaled[value])
        low, high = one.volume(scaled[value])
        volume = float(reference.sum())
        into["outer_holds"][slug].append(1.0 - missed_fraction(outer, reference))
        into["inner_right"][slug].append(1.0 - wrong_fraction(inner, reference))
        into["volume_covered"][slug].append(
            float(low <= volume <= (np.inf if high is None else high))
        )
        if volume:
            into["inner_size"][slug].append(inner.sum() / volume)
        if volume and one.outer:
            into["outer_size"][slug].append(outer.sum() / volume)
        if volume and high is not None:
            into["volume_width"][slug].append((high - low) / volume)


def cross_fitted(
    cases: Sequence[CaseVoxels],
    slugs: Sequence[str],
    method: ScalingMethod = "vector",
    start: Scaling | None = None,
) -> dict[str, dict[str, ByClass]]:
    """Figures before and after a scaling that was fitted on the other patients.

    Returns:
        Values by ``before`` or ``after``, figure and class: ``ece_roi``, mean over the cases;
        ``ece_roi_pooled``, of all voxels together; ``nll_roi``, negative log-likelihood of the same
        voxels against the share of raters, mean over the cases; ``dice`` of the mask of highest
        probability.
    """
    patients = sorted({case.patient for case in cases})
    folds = [set(patients[k::FOLDS]) for k in range(min(FOLDS, len(patients)))]
    scaled: dict[str, NDArray[np.float32]] = {}
    for fold in folds:
        others = [case for case in cases if case.patient not in fold]
        scaling = fit_scaling(*drawn_voxels(others), method, start)
        scaled |= {c.case: scaling(c.probability) for c in cases if c.patient in fold}
    before = [case.probability for case in cases]
    return {
        "before": _figures(cases, before, slugs),
        "after": _figures(cases, [scaled[case.case] for case in cases], slugs),
    }


def _figures(
    cases: Sequence[CaseVoxels], maps: Sequence[NDArray[np.float32]], slugs: Sequence[str]
) -> dict[str, ByClass]:
    found: dict[str, ByClass] = {
        name: {} for name in ("ece_roi", "ece_roi_pooled", "nll_roi", "dice")
    }
    for value, slug in enumerate(slugs, start=1):
        bins, likelihoods, dices = [], [], []
        for case, p in zip(cases, maps, strict=True):
            share, region = np.zeros(p.shape[1]), case.class_region[value]
            share[case.region] = case.share[value]
            bins.append(reliability(p[value], share, region))
            if region.any():
                likelihoods.append(nll(p[value][region], share[region]))
            dices.append(metrics.dice(p.argmax(axis=0) == value, case.reference == value))
        found["ece_roi"][slug] = mean_defined([one.ece for one in bins])
        found["ece_roi_pooled"][slug] = reduce(add, bins).ece
        found["nll_roi"][slug] = mean_defined(likelihoods)
        found["dice"][slug] = mean_defined(dices)
    return found
