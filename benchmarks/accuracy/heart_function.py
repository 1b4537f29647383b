"""Ejection fractions of held-out patients from the sets of their two phases, and their intervals.

The images have to be segmented (``medsegdiff segment DATA --fold K``). Of a patient's two images
that with the larger ventricle in the reference is end diastole. Intervals are the members' own, and
widened by a factor from the other patients (``medsegdiff.metrics.widening``).

python -m benchmarks.accuracy.heart_function DATA CASES --ventricle "left ventricle"
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.core import read_json, write_json
from medsegdiff.data import class_slug, load_manifest, read_reference
from medsegdiff.metrics import EjectionFraction, ejection_fraction, widening

RESULTS = Path("benchmarks/results/heart_function.json")
LEVEL = 0.9


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    given = _parse(words)
    manifest = load_manifest(given.data)
    number = {name: value for value, name in manifest.labels.items()}[given.ventricle]
    slug = class_slug(given.ventricle)
    phases = defaultdict(list)
    for case in manifest.cases:
        record = given.cases / case.id / f"{case.id}_run.json"
        if record.exists():
            volumes = read_json(record)["volume_ml"][slug]
            mask = read_reference(case, manifest)[0][0] == number
            phases[case.patient].append((volumes, int(mask.sum())))
    pairs = [sorted(two, key=lambda one: -one[1]) for two in phases.values()]
    pairs = [two for two in pairs if len(two) == 2]
    found = [ejection_fraction(diastole[0], systole[0]) for diastole, systole in pairs]
    references = [100.0 * (1.0 - systole[1] / diastole[1]) for diastole, systole in pairs]
    told = read_json(given.results) if given.results.exists() else {}
    write_json(given.results, {**told, given.ventricle: figures(found, references)})


def figures(found: Sequence[EjectionFraction], references: Sequence[float]) -> dict[str, Any]:
    """Errors in percentage points, and the share of references in the intervals.

    Args:
        found: Fractions of n patients, at least 3.
        references: Their reference fractions (n,), in percent.
    """
    values, truth = np.array([one.value for one in found]), np.asarray(references)
    error = values - truth
    own = [one.interval(LEVEL) for one in found]
    factors = [
        widening([*found[:i], *found[i + 1 :]], [*references[:i], *references[i + 1 :]], LEVEL)
        for i in range(len(found))
    ]
    wide = None  # too few patients
    if np.isfinite(factors).all():
        wide = [one.interval(LEVEL, factor) for one, factor in zip(found, factors, strict=True)]
    return {
        "patients": len(found),
        "median_absolute_error": float(np.median(np.abs(error))),
        "mean_absolute_error": float(np.abs(error).mean()),
        "bias": float(error.mean()),
        "limits_of_agreement": [float(error.mean() + k * error.std(ddof=1)) for k in (-1.96, 1.96)],
        "correlation": float(np.corrcoef(values, truth)[0, 1]),
        "level": LEVEL,
        "members": _held(own, truth),
        "widened": wide and {"factor": float(np.median(factors)), **_held(wide, truth)},
    }


def _held(intervals: Sequence[tuple[float, float]], truth: Any) -> dict[str, float]:
    low, high = np.array(intervals).T
    return {
        "covered": float(((low <= truth) & (truth <= high)).mean()),
        "median_width": float(np.median(high - low)),
    }


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.heart_function")
    parser.add_argument("data", help="description of the data set, or a known name")
    parser.add_argument("cases", type=Path, help="folder of the segmented cases")
    parser.add_argument("--ventricle", default="left ventricle", help="name of its class")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the result")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
