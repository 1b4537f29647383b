"""Checks of a guarantee: errors of the outer and inner masks, and coverage of the volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.types import Geometry
from medsegdiff.data.predictions import Prediction
from medsegdiff.metrics.guaranteed import covered, missed_fraction, wrong_fraction
from medsegdiff.metrics.means import mean_defined

FIGURES = {
    "missed_fraction": "missed_fraction",
    "wrong_fraction": "wrong_fraction",
    "volume_covered": "volume_coverage",
}
"""Figure of a case -> figure of all cases."""

STATEMENT = {"missed_fraction": "outer", "wrong_fraction": "inner", "volume_covered": "volume"}
"""Figure -> the statement of the guarantee that it tests; a statement may be vacuous."""


def case_guarantee(
    prediction: Prediction,
    hard: NDArray[np.uint8],
    classes: Mapping[int, str],
    geometry: Geometry,
    all_known: bool = True,
) -> dict[str, dict[str, float]]:
    """Figure -> class -> value of a case; empty if the case was segmented without a guarantee.

    Args:
        prediction: Prediction of the case.
        hard: Hard reference (*shape).
        classes: Value -> name of the foreground classes.
        geometry: Geometry of the case.
        all_known: Whether the class of every voxel is known; otherwise the volume is not.
    """
    if not prediction.guarantee:
        return {}
    # the geometry of a plane of a volume no longer contains the plane's thickness
    voxel_ml = Geometry(tuple(prediction.run["shape"]), geometry.affine).voxel_ml
    found: dict[str, dict[str, float]] = {name: {} for name in FIGURES}
    for value, slug in classes.items():
        reference, (inner, outer) = hard == value, prediction.guarantee[slug]
        interval = prediction.run["guarantee"]["classes"][slug]["volume_ml"]
        volume = float(np.count_nonzero(reference)) * voxel_ml
        figures = {
            "missed_fraction": missed_fraction(outer, reference),
            "wrong_fraction": wrong_fraction(inner, reference),
            "volume_covered": float(covered(interval, volume)) if all_known else float("nan"),
        }
        vacuous = prediction.run["guarantee"]["classes"][slug].get("vacuous", ())
        for name, figure in figures.items():
            nothing = STATEMENT[name] in vacuous or (name == "wrong_fraction" and not inner.any())
            found[name][slug] = float("nan") if nothing else figure
    return {
        name: {**by_class, "mean": mean_defined(list(by_class.values()))}
        for name, by_class in found.items()
    }


def summarise_guarantee(
    cases: Sequence[Mapping[str, Mapping[str, float]]], runs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """``guarantee``: means over the cases with a guarantee; empty if there are none.

    Args:
        cases: Figures of each case from ``case_guarantee``.
        runs: Content of ``<case>_run.json`` of each case.

    Returns:
        ``level`` (a list if cases differ), each figure by class and ``mean``, ``n_cases``, and
        ``vacuous``: statement (``outer``, ``inner``, ``volume``) -> class -> number of cases in
        which the statement is vacuous: the whole image, an empty mask, no upper limit. These cases
        are in no other figure of that statement.
    """
    known = [(case, run) for case, run in zip(cases, runs, strict=True) if case]
    if not known:
        return {}
    levels = sorted({run["guarantee"]["level"] for _, run in known})
    figures = {
        of_all: {
            slug: mean_defined([case[name][slug] for case, _ in known])
            for slug in known[0][0][name]
        }
        for name, of_all in FIGURES.items()
    }
    vacuous = {
        STATEMENT[name]: {
            slug: sum(_says_nothing(name, slug, case, run) for case, run in known)
            for slug in known[0][0][name]
            if slug != "mean"
        }
        for name in FIGURES
    }
    return {
        "guarantee": {
            "level": levels[0] if len(levels) == 1 else levels,
            **figures,
            "vacuous": vacuous,
            "n_cases": len(known),
        }
    }


def _says_nothing(
    figure: str, slug: str, case: Mapping[str, Mapping[str, float]], run: Mapping[str, Any]
) -> bool:
    """Whether the statement is vacuous; the check of a volume may just be unknown."""
    if figure != "volume_covered":
        return bool(np.isnan(case[figure][slug]))
    of_class = run["guarantee"].get("classes", {}).get(slug, {})
    return STATEMENT[figure] in of_class.get("vacuous", ())


def count_fitted(runs: Sequence[Mapping[str, Any]]) -> int:
    """Number of cases whose image is among those that the calibration was fitted on."""
    return sum(bool((run.get("calibration") or {}).get("includes_this_case")) for run in runs)


def guarantee_sentences(summary: Mapping[str, Any]) -> list[str]:
    """Sentences about the guarantee and the calibration of a summary."""
    told, found, fitted = [], summary.get("guarantee"), summary.get("n_fitted", 0)
    if found:
        levels = found["level"] if isinstance(found["level"], list) else [found["level"]]
        level = " and ".join(f"{100 * level:g} %" for level in levels)
        held = [
            words.format(_share(found[figure]["mean"], inverse))
            for figure, words, inverse in (
                ("missed_fraction", "the outer masks hold {} of the reference on average", True),
                ("wrong_fraction", "the inner masks are right in {} of their volume", True),
                ("volume_coverage", "{} of the volumes lie in their interval", False),
            )
            if not np.isnan(found[figure]["mean"])
        ]
        if held:
            told.append(f"Guarantee of {level}: {', '.join(held)}.")
        told += _vacuous_sentences(found)
    if fitted:
        told.append(
            f"The calibration was fitted on {fitted} of these cases: their figures of calibration "
            "and guarantee are too good. Only cases that it has not seen can confirm them."
        )
    return told


def _share(value: float, inverse: bool) -> str:
    return f"{100 * (1 - value if inverse else value):.1f} %"


def _vacuous_sentences(found: Mapping[str, Any]) -> list[str]:
    """Sentences about vacuous statements of a guarantee, class by class."""
    words = {
        "outer": "the outer mask of {} is the whole image",
        "inner": "the inner mask of {} is empty",
        "volume": "the volume of {} has no upper limit",
    }
    return [
        f"In {count} of {found['n_cases']} cases {words[name].format(slug)}: there the guarantee "
        "says nothing."
        for name, by_class in found.get("vacuous", {}).items()
        for slug, count in by_class.items()
        if count
    ]
