"""Does a guarantee hold: what outer masks miss, what inner ones hold wrongly, and the volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.types import Geometry
from medsegdiff.data.predictions import Prediction
from medsegdiff.metrics.guaranteed import covered, missed_fraction, wrong_fraction

FIGURES = {
    "missed_fraction": "missed_fraction",
    "wrong_fraction": "wrong_fraction",
    "volume_covered": "volume_coverage",
}
"""Of a case -> of all cases."""


def case_guarantee(
    prediction: Prediction,
    hard: NDArray[np.uint8],
    classes: Mapping[int, str],
    geometry: Geometry,
) -> dict[str, dict[str, float]]:
    """Figure -> class -> value of a case; empty where the case was segmented without guarantee.

    Args:
        prediction: of the case.
        hard: (*shape) hard reference.
        classes: value -> name of the foreground classes.
        geometry: of the case.
    """
    if not prediction.guarantee:
        return {}
    # a plane of a volume has a thickness, which its geometry here has lost
    voxel_ml = Geometry(tuple(prediction.run["shape"]), geometry.affine).voxel_ml
    found: dict[str, dict[str, float]] = {name: {} for name in FIGURES}
    for value, slug in classes.items():
        reference, (inner, outer) = hard == value, prediction.guarantee[slug]
        interval = prediction.run["guarantee"]["classes"][slug]["volume_ml"]
        volume = float(np.count_nonzero(reference)) * voxel_ml
        found["missed_fraction"][slug] = missed_fraction(outer, reference)
        found["wrong_fraction"][slug] = wrong_fraction(inner, reference)
        found["volume_covered"][slug] = float(covered(interval, volume))
    return {
        name: {**by_class, "mean": float(np.mean(list(by_class.values())))}
        for name, by_class in found.items()
    }


def summarise_guarantee(
    cases: Sequence[Mapping[str, Mapping[str, float]]], runs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """``guarantee``: means over the cases that have one; nothing if none has.

    Args:
        cases: what ``case_guarantee`` gave for each case.
        runs: what ``<case>_run.json`` says of each.

    Returns:
        ``level`` (a list where cases differ), each figure by class and ``mean``, ``n_cases``.
    """
    known = [(case, run) for case, run in zip(cases, runs, strict=True) if case]
    if not known:
        return {}
    levels = sorted({run["guarantee"]["level"] for _, run in known})
    figures = {
        of_all: {
            slug: float(np.mean([case[name][slug] for case, _ in known]))
            for slug in known[0][0][name]
        }
        for name, of_all in FIGURES.items()
    }
    return {
        "guarantee": {
            "level": levels[0] if len(levels) == 1 else levels,
            **figures,
            "n_cases": len(known),
        }
    }


def count_fitted(runs: Sequence[Mapping[str, Any]]) -> int:
    """Of how many cases the image is among those that the calibration was fitted on."""
    return sum(bool((run.get("calibration") or {}).get("includes_this_case")) for run in runs)


def guarantee_sentences(summary: Mapping[str, Any]) -> list[str]:
    """What the summary says of a guarantee and of the calibration, in plain words."""
    told, found, fitted = [], summary.get("guarantee"), summary.get("n_fitted", 0)
    if found:
        levels = found["level"] if isinstance(found["level"], list) else [found["level"]]
        level = " and ".join(f"{100 * level:g} %" for level in levels)
        held, right = (100 * (1 - found[f"{of}_fraction"]["mean"]) for of in ("missed", "wrong"))
        told.append(
            f"Guarantee of {level}: the outer masks hold {held:.1f} % of the reference on average, "
            f"the inner masks are right in {right:.1f} % of their volume, and "
            f"{100 * found['volume_coverage']['mean']:.0f} % of the volumes lie in their interval."
        )
    if fitted:
        told.append(
            f"The calibration was fitted on {fitted} of these cases: their figures of calibration "
            "and guarantee are too good. Only cases that it has not seen can confirm them."
        )
    return told
