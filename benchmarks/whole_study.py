"""A whole study by ``medsegdiff fit`` without an edited line: the figures of all held-out cases.

medsegdiff fit hippocampus_mr=FOLDER --output STUDY --hours 2 --device cpu --set tracking_uri=off
python -m benchmarks.whole_study STUDY --data hippocampus_mr=FOLDER --name hippocampus

Each case is predicted by the network that has not seen it, before the calibration.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.core import read_json, write_json
from medsegdiff.data import load_manifest

RESULTS = Path("benchmarks/results/whole_study.json")
FIGURES = ("dice", "ece", "ece_roi", "nll", "uncertainty_error_auroc", "ged2")


def main(words: Sequence[str] | None = None) -> None:
    """Write the figures of a study that is done into the table."""
    logging.basicConfig(level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", required=True, help="data set, as for medsegdiff check")
    parser.add_argument("--name", required=True, help="name of the row")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(words)
    folds = {
        case.id: number
        for number in range(len(load_manifest(options.data).folds))
        for case in load_manifest(options.data).split(number)[1]
    }
    rows = read_json(options.output) if options.output.exists() else {}
    rows[options.name] = summary(options.study, folds)
    logging.info("%s", rows[options.name])
    write_json(options.output, rows)


def summary(study: Path, folds: Mapping[str, int]) -> dict[str, Any]:
    """The figures of a study.

    Args:
        study: Folder that ``fit`` has written.
        folds: Name of a case -> number of the fold that holds it out.
    """
    report, stages = read_json(study / "report.json"), read_json(study / "study.json")["stages"]
    found = report["summary"]
    seconds = {name: stage["seconds"] for name, stage in stages.items()}
    by_fold: dict[int, list[float]] = {}
    for case in report["cases"]:
        values = case["dice"]
        mean = values.get("mean", np.mean([v for k, v in values.items() if k != "mean"]))
        by_fold.setdefault(folds[case["case"]], []).append(float(mean))
    return {
        "cases": len(report["cases"]),
        "figures": {name: found.get(name) for name in FIGURES},
        "dice_95": found["confidence_95"]["dice"]["mean"],
        "anchor_dice": found.get("anchor", {}).get("dice", {}).get("mean"),
        "dice_by_fold": {n: round(float(np.mean(v)), 4) for n, v in sorted(by_fold.items())},
        "training_seconds": [s for name, s in seconds.items() if name.startswith("train")],
        "other_seconds": {n: s for n, s in seconds.items() if not n.startswith("train")},
        "calibration": _of_patients_left_out(report["calibration"]),
        "edits": 0,
    }


def _of_patients_left_out(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of patients left out of the fit, before and after each scaling."""
    after = {method: one["after"] for method, one in choice.get("candidates", {}).items()}
    return {"reason": choice["reason"], "before": choice["before"], "after": after}


if __name__ == "__main__":
    main()
