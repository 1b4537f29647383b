"""Is a calibration worth anything for nnU-Net? Fitted to some held-out cases, judged by others.

nnU-Net v2 is trained for minutes on folds of the hippocampus set, by its own Python. Its held-out
cases are then judged by calibrations that did not see them: of other patients of all networks,
which is what a guarantee promises, and of other networks alone, which nothing promises. Every step
is skipped where its result exists.

python -m benchmarks.other_models --nnunet NNUNET_ENVIRONMENT/bin/python --work runs/other_models
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from medsegdiff.calibration import calibrate
from medsegdiff.core import read_json, write_json
from medsegdiff.evaluation import evaluate
from medsegdiff.other_models import adopt

logger = logging.getLogger("benchmarks")

RESULTS = Path("benchmarks/results/other_models.json")
SCRIPT = Path(__file__).with_name("nnunet_folds.py")
LEVEL = 0.9
CLASSES = ("anterior", "posterior")
FIGURES = ("dice", "nll", "ece", "ece_roi")
GUARANTEES = ("missed_fraction", "wrong_fraction", "volume_covered")
RESAMPLES = 2000


class Part(NamedTuple):
    """Cases to fit a calibration to, and others to judge it by.

    Attributes:
        name: Name of the part.
        fitted: Folders of the adopted cases that it is fitted to.
        left_out: Folders of those that it is judged by.
        predictions: Folder of nnU-Net that these were adopted from.
    """

    name: str
    fitted: list[Path]
    left_out: list[Path]
    predictions: Path


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    asked = _parse(words)
    data, work = asked.root / "hippocampus", asked.work
    if asked.nnunet is not None:
        train(asked.nnunet, data, work / "nnunet", asked.folds, asked.epochs, asked.iterations)
    validations = _validations(work / "nnunet")
    for fold, folder in validations.items():
        adopt(folder, work / "raw" / fold, data=data, preview=False)
    raw = {fold: _case_folders(work / "raw" / fold) for fold in validations}
    everything = sorted(case for cases in raw.values() for case in cases)
    trainer = next(iter(validations.values())).parents[1]
    ways: dict[str, list[Part]] = {
        "patients_left_out": [
            Part(f"half_{k}", everything[1 - k :: 2], everything[k::2], trainer) for k in range(2)
        ],
        "networks_left_out": [
            Part(fold, [c for other in raw for c in raw[other] if other != fold], cases, folder)
            for (fold, cases), folder in zip(raw.items(), validations.values(), strict=True)
        ],
    }
    record: dict[str, Any] = {
        "data": "hippocampus",
        "folds": sorted(validations),
        "epochs": asked.epochs,
        "iterations": asked.iterations,
        "level": LEVEL,
    }
    for way, parts in ways.items():
        found = [judged(data, work, part) for part in parts]
        cases = [case for one in found for case in one["cases"]]
        scaling = {part.name: one["scaling"] for part, one in zip(parts, found, strict=True)}
        record[way] = {"patients": len(cases), "scaling": scaling, **summarised(cases)}
        write_json(asked.results, record)


def train(
    python: Path, data: Path, work: Path, folds: Sequence[int], epochs: int, iterations: int
) -> None:
    """Train nnU-Net by its own Python, and predict the held-out cases of each fold."""
    command: list[Any] = [python, SCRIPT, "--data", data.resolve(), "--work", work.resolve()]
    command += ["--folds", ",".join(map(str, folds))]
    command += ["--epochs", str(epochs), "--iterations", str(iterations)]
    subprocess.run(list(map(str, command)), check=True)


def _validations(work: Path) -> dict[str, Path]:
    """Fold -> folder of its held-out cases, of the folds that are complete."""
    found = sorted(work.glob("results/*/*/fold_*/validation/summary.json"))
    return {file.parents[1].name: file.parent for file in found}


def _case_folders(folder: Path) -> list[Path]:
    return [one for one in sorted(folder.iterdir()) if (one / f"{one.name}_run.json").is_file()]


def _linked(cases: Sequence[Path], folder: Path) -> Path:
    """A folder of links to folders of cases."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        if not (folder / case.name).exists():
            (folder / case.name).symlink_to(case.resolve())
    return folder


def judged(data: Path, work: Path, part: Part) -> dict[str, Any]:
    """Figures of each case that a calibration did not see, before and after it."""
    file = work / "calibrations" / f"{part.name}.json"
    if not file.is_file():
        fitted_to = _linked(part.fitted, work / "others" / part.name)
        calibrate(None, data, fitted_to, file, splits=0)  # this is the check
    whole = work / "calibrated" / part.name
    how: dict[str, Any] = {"calibration": file, "guarantee": LEVEL, "preview": False}
    adopt(part.predictions, whole, data=data, **how)
    after = _linked([whole / case.name for case in part.left_out], work / "after" / part.name)
    before = _linked(part.left_out, work / "before" / part.name)
    reports = {}
    for name, folder in (("before", before), ("after", after)):
        report = work / "reports" / part.name / name
        if not (report / "report.json").is_file():
            evaluate(data, folder, report)
        reports[name] = {one["case"]: one for one in read_json(report / "report.json")["cases"]}
    cases = []
    for case, figures in reports["before"].items():
        run = read_json(after / case / f"{case}_run.json")
        one = {"before": figures, "after": reports["after"][case], "review": run["review"]}
        one["network"] = run["model"]["network"]
        cases.append(one)
    fitted = read_json(file)
    scaling = {key: fitted[key] for key in ("method", "temperature", "bias", "n")}
    return {"scaling": scaling, "cases": cases}


def summarised(cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Each figure by class: [mean, low, high], with 95 % of the resampled patients between."""
    figures: dict[str, Any] = {}
    for name in FIGURES:
        figures[name] = {}
        for slug in CLASSES:
            of = {when: _values(cases, when, name, slug) for when in ("before", "after")}
            change = of["after"] - of["before"]
            figures[name][slug] = {k: _interval(v) for k, v in (of | {"change": change}).items()}
    guarantees = {
        name: {
            slug: _interval(_array([one["after"]["guarantee"][name].get(slug) for one in cases]))
            for slug in CLASSES
        }
        for name in GUARANTEES
    }
    return {"figures": figures, "guarantees": guarantees, "expected_dice": _expected(cases)}


def _values(
    cases: Sequence[dict[str, Any]], when: str, name: str, slug: str
) -> NDArray[np.float64]:
    return _array([one[when][name][slug] for one in cases])


def _expected(cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlation of expected and real Dice, and the share of cases in its interval."""
    found = {}
    for slug in CLASSES:
        told = [
            one["review"]["expected_dice"].get(slug) if one["review"] else None for one in cases
        ]
        pairs = [
            (expected["dice"], one["after"]["dice"][slug], expected["interval"])
            for expected, one in zip(told, cases, strict=True)
            if expected
        ]
        if len(pairs) < 3:
            continue
        expected, real, intervals = zip(*pairs, strict=True)
        inside = [low <= value <= high for (low, high), value in zip(intervals, real, strict=True)]
        networks = np.array([c["network"] for c, e in zip(cases, told, strict=True) if e])
        within = [
            spearmanr(np.array(expected)[own], np.array(real)[own]).statistic
            for own in (networks == name for name in np.unique(networks))
        ]
        found[slug] = {
            "cases": len(pairs),
            "rank_correlation_within_networks": [round(float(v), 4) for v in within],
            "rank_correlation": _correlation(np.array(expected), np.array(real)),
            "interval_holds": _interval(_array(inside)),
        }
    return found


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> list[float]:
    """Spearman's rank correlation, and 95 % of those of resampled patients."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(first), size=(RESAMPLES, len(first)))
    values = [spearmanr(first[some], second[some]).statistic for some in drawn]
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return [round(float(v), 4) for v in (spearmanr(first, second).statistic, low, high)]


def _interval(values: NDArray[np.float64]) -> list[float]:
    """[mean, low, high] of the defined values, with 95 % of the resampled patients between."""
    known = values[np.isfinite(values)]
    drawn = np.random.default_rng(0).choice(known, (RESAMPLES, len(known))).mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return [round(float(v), 5) for v in (known.mean(), low, high)]


def _array(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.other_models")
    add, default = parser.add_argument, os.environ.get("MEDSEGDIFF_DATA", "../shared/data")
    add("--root", type=Path, default=Path(default), help="folder of the real sets")
    add("--work", type=Path, required=True, help="folder for nnU-Net's files and the cases")
    add("--nnunet", type=Path, help="Python of nnU-Net's environment; without, nothing is trained")
    add("--folds", type=lambda text: [int(k) for k in text.split(",")], default=[0, 1, 2])
    add("--epochs", type=int, default=6)
    add("--iterations", type=int, default=25, help="steps of an epoch")
    add("--results", type=Path, default=RESULTS)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
