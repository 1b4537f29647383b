"""Check a calibration on cases that were left out of its fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from medsegdiff.calibration.conformal import THRESHOLDS
from medsegdiff.calibration.fit import fit_calibration
from medsegdiff.calibration.fitted import Calibration
from medsegdiff.calibration.voxels import CaseVoxels
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import ScalingMethod
from medsegdiff.metrics.guaranteed import covered, missed_fraction, wrong_fraction
from medsegdiff.metrics.means import mean_defined

LEVELS = (0.9, 0.95)
SPLITS = 200
VOXELS = 20_000
"""Voxels that the scaling of a split is fitted to: enough for a mean over all splits."""
SHARE = 0.8
SEED = 0
FIGURES = (
    "outer_holds",
    "inner_right",
    "volume_covered",
    "volume_width",
    "outer_size",
    "inner_size",
    "outer_vacuous",
    "inner_vacuous",
    "volume_vacuous",
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
        progress: Wrapper of the splits' numbers.

    Returns:
        Level, as text -> figure -> class: ``outer_holds``, mean share of the reference inside the
        outer mask; ``inner_right``, mean share of the inner mask that is right; ``volume_covered``,
        share of cases whose volume lies in its interval; ``volume_width``, mean width over the true
        volume, of finite intervals; ``outer_size`` and ``inner_size``, mean volume of the
        masks over the true one; ``outer_vacuous``,
        ``inner_vacuous``, ``volume_vacuous``: share of cases whose outer mask is the whole image,
        whose inner mask is empty, whose volume has no upper limit. A case about which a statement
        says nothing is in no other figure of that statement. A split that marks nothing to fit to
        is left out.
    """
    rng, patients = np.random.default_rng(SEED), sorted({case.patient for case in cases})
    n_fit = min(max(1, round(share * len(patients))), len(patients) - 1)
    found: dict[str, dict[str, dict[str, list[float]]]] = {
        f"{level:g}": {f: {s: [] for s in slugs} for f in FIGURES} for level in levels
    }
    for _ in progress(range(splits)):
        inside = set(rng.permutation(patients)[:n_fit].tolist())
        fit_on = [case for case in cases if case.patient in inside]
        try:
            fitted = fit_calibration(fit_on, slugs, method, VOXELS)
        except InputError:  # nothing is marked in these
            continue
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
    """Add what a fit reaches on a case."""
    w = case.weight
    for value, (slug, one) in enumerate(fitted.guarantee(level).items(), start=1):
        reference = case.reference == value
        inner, outer = one.masks(scaled[value])
        low, high = one.volume(scaled[value], w)
        volume = float(w[reference].sum())
        found = {
            "outer_vacuous": float(one.outer < THRESHOLDS[0]),
            "inner_vacuous": float(not inner.any()),
            "volume_vacuous": float(high is None),
        }
        if one.outer >= THRESHOLDS[0]:
            found["outer_holds"] = 1.0 - missed_fraction(outer, reference, w)
            if volume:
                found["outer_size"] = float(w[outer].sum()) / volume
        if inner.any():
            found["inner_right"] = 1.0 - wrong_fraction(inner, reference, w)
            if volume:
                found["inner_size"] = float(w[inner].sum()) / volume
        if high is not None:
            found["volume_covered"] = float(covered((low, high), volume))
            if volume:
                found["volume_width"] = (high - low) / volume
        for name, figure in found.items():
            into[name][slug].append(figure)
