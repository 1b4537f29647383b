"""A plan without an edited line: ours and MONAI's U-Net of the same plan, for the same CPU time.

The plan and the training are those of ``medsegdiff fit``. Then the U-Net is trained on the same
patches for as many CPU seconds as ours took, reading and validations included. Both segment the
held-out cases, whose files ``medsegdiff evaluate`` compares with the references.

python -m benchmarks.plan_and_fit --minutes 10 --seeds 0,1,2 --work runs
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders.planned_unet import OneMaskInferer, PlannedUNet, train_for
from medsegdiff.bundle import Bundle
from medsegdiff.calibration import calibrate
from medsegdiff.cases import CaseSegmenter, segment_fold
from medsegdiff.core import read_json, write_json
from medsegdiff.data import load_manifest
from medsegdiff.evaluation import evaluate
from medsegdiff.phantoms import write_cohort
from medsegdiff.planning import plan
from medsegdiff.study import write_single
from medsegdiff.training import train

logger = logging.getLogger("benchmarks")

RESULTS = Path("benchmarks/results/plan_and_fit.json")
REAL = ("hippocampus", "lidc", "acdc", "chase_db1")
PHANTOMS: dict[str, dict[str, Any]] = {
    "phantom_2d": {"spatial_dims": 2, "cases": 60, "size": 96, "raters": 3},
    "phantom_3d": {"spatial_dims": 3, "cases": 40, "size": 40},
}
QUIET = {"tracking_uri": "off"}
Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    """The command; rows that the table has already are not made again."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments = _parse(words)
    for name in arguments.data:
        for seed in arguments.seeds:
            trial = _Trial(name, seed, arguments)
            missing = [one for one in arguments.contenders if not trial.known(one)]
            for contender in missing:
                trial.add(CONTENDERS[contender](trial))


class _Trial:
    """One data set, seed and time: its folder holds what was trained."""

    def __init__(self, name: str, seed: int, arguments: argparse.Namespace) -> None:
        self.name, self.seed, self.minutes = name, seed, arguments.minutes
        self.fold, self.results = arguments.fold, arguments.results
        self.folder = arguments.work / f"{name}-fold{self.fold}-{self.minutes:g}min-seed{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = str(_place(name, arguments.root, arguments.work))
        self.of_training = {"seed": seed, **QUIET}
        self.untrained, self.trained = (Bundle(self.folder / p / name) for p in ("plan", "trained"))
        self.settings = {"data": name, "fold": self.fold, "seed": seed, "minutes": self.minutes}

    def known(self, contender: str) -> bool:
        """Whether the table has the row."""
        wanted = {**self.settings, "contender": contender}
        return any(wanted.items() <= row.items() for row in _rows(self.results))

    def add(self, row: Row) -> None:
        """Write a row into the table."""
        rows = [*_rows(self.results), {**self.settings, **row, "edits": 0}]
        order = ("data", "minutes", "fold", "seed", "contender")
        rows.sort(key=lambda one: [one[key] for key in order])
        write_json(self.results, rows)
        logger.info("%s", rows[-1] if len(rows) == 1 else {**self.settings, **row})

    def ours(self) -> float:
        """Plan and train, unless it is done; CPU seconds of the training."""
        record = self.folder / "ours.json"
        if not record.exists():
            if not (self.untrained.root / "configs").exists():
                plan(self.data, self.untrained.root, hours=self.minutes / 60.0, device="cpu")
            output = self.folder / "run"
            shutil.rmtree(output, ignore_errors=True)  # a resumed one would not tell its time
            started = time.process_time()
            train(
                self.untrained,
                self.data,
                output,
                fold=self.fold,
                device="cpu",
                overrides=self.of_training,
            )
            seconds = time.process_time() - started
            write_single(self.untrained, output / "final.pt", {}, self.trained)
            write_json(record, {"seconds": seconds})
        return float(read_json(record)["seconds"])

    def judged(self, cases: Path) -> Row:
        """The figures of segmented cases."""
        evaluate(self.data, cases, cases / "report")
        summary = read_json(cases / "report" / "report.json")["summary"]
        several = load_manifest(self.data).raters > 1
        row = {
            "dice": summary["dice"]["mean"],
            "dice_95": summary["confidence_95"]["dice"]["mean"],
            "ged2": summary["ged2"]["mean"] if several else None,
            "ece": summary["ece"]["mean"],
            "ece_roi": summary["ece_roi"]["mean"],
            "auroc": summary["uncertainty_error_auroc"]["mean"],
            "cases": summary["n_cases"],
        }
        return {key: _rounded(value) for key, value in row.items()}


def medsegdiff(trial: _Trial) -> Row:
    """Ours as planned; the anchor is one pass of the same weights."""
    seconds, cases = trial.ours(), trial.folder / "ours"
    changes = {"calibration": "off", "save_members": True, "device": "$torch.device('cpu')"}
    started = time.process_time()
    segment_fold(trial.trained.root, trial.data, cases, trial.fold, changes)
    used = time.process_time() - started
    row = {"contender": "medsegdiff", "seconds_cpu": round(seconds), **trial.judged(cases)}
    summary = read_json(cases / "report" / "report.json")["summary"]
    chosen = calibrate(trial.trained, trial.data, cases, trial.folder / "calibration.json")
    planned = read_json(trial.untrained.root / "plan.json")["plan"]
    return row | {
        "steps": [planned["anchor_steps"], _steps(trial.folder / "run") - planned["anchor_steps"]],
        "segmenting_seconds_cpu": round(used),
        "anchor_dice": _rounded(summary["anchor"]["dice"]["mean"]),
        "calibration": _compared(chosen.checked["choice"]),
    }


def _unet(trial: _Trial, mirrored: bool) -> Row:
    seconds, weights = trial.ours(), trial.folder / "unet.pt"
    changes = {**trial.of_training, "dataset_dir": trial.data, "fold": trial.fold}
    changes["device"] = "$torch.device('cpu')"
    if not weights.exists():
        made, steps = train_for(trial.untrained, changes, seconds)
        torch.save({"network": made, "steps": steps}, weights)
    content = torch.load(weights, weights_only=False)
    network: PlannedUNet = content["network"].eval()
    cases = trial.folder / ("unet_mirrored" if mirrored else "unet")
    parser = trial.trained.parser("inference", {"device": changes["device"]})
    described, settings = parser["inferer"], parser.get_parsed_content("inferer").settings
    axes = described["mirror_axes"] if mirrored else ()
    segmenter = CaseSegmenter(
        trial.trained,
        network,  # type: ignore[arg-type]
        parser.get_parsed_content("preprocessing"),
        OneMaskInferer(described["window"], axes, settings),  # type: ignore[arg-type]
        cases,
        save_members=True,
        expected_mm=parser["segmenter"]["expected_mm"],
        calibration="off",
        placing=parser.get_parsed_content("placing"),
    )
    started = time.process_time()
    segmenter.segment_cases(load_manifest(trial.data).held_out(trial.fold))
    used = time.process_time() - started
    name = "unet_mirrored" if mirrored else "unet"
    row = {"contender": name, "seconds_cpu": round(seconds), **trial.judged(cases)}
    return row | {"steps": content["steps"], "segmenting_seconds_cpu": round(used)}


CONTENDERS: dict[str, Callable[[_Trial], Row]] = {
    "medsegdiff": medsegdiff,
    "unet": lambda trial: _unet(trial, mirrored=False),
    "unet_mirrored": lambda trial: _unet(trial, mirrored=True),
}
"""Ours; MONAI's U-Net; and the same, averaged over the mirror images that ours uses."""


def _compared(choice: Row) -> Row:
    """The scaling that was chosen, and its figures on patients left out, beside those without."""
    found: Row = {"reason": choice["reason"], "before": _means(choice["before"])}
    for name, candidate in choice["candidates"].items():
        found[name] = {"after": _means(candidate["after"]), "refused": candidate["refused"]}
    return found


def _means(figures: dict[str, dict[str, float]]) -> Row:
    return {name: _rounded(sum(by.values()) / len(by)) for name, by in figures.items()}


def _place(name: str, root: Path, work: Path) -> Path | str:
    if name in REAL:
        place = root / name
        return place if (place / "dataset.json").exists() else f"{name}={place}"
    place = work / name
    if not (place / "dataset.json").exists():
        write_cohort(place, **PHANTOMS[name])
    return place


def _steps(run: Path) -> int:
    """Number of training steps that the schedule of a run's last checkpoint has seen."""
    last = max(run.glob("last_checkpoint_epoch=*.pt"), key=lambda p: p.stat().st_mtime)
    content = torch.load(last, map_location="cpu", weights_only=True)
    return int(content["lr_scheduler"]["last_epoch"])


def _rows(results: Path) -> list[Row]:
    return list(read_json(results) or []) if results.exists() else []


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan_and_fit")
    add, default = parser.add_argument, os.environ.get("MEDSEGDIFF_DATA", "../shared/data")
    add("--data", type=_words, default=[*REAL, *PHANTOMS], help="some of the sets, with commas")
    add("--contenders", type=_words, default=list(CONTENDERS), help="some of them, with commas")
    add("--minutes", type=float, default=10.0, help="of training, as the plan is told")
    add("--seeds", type=_numbers, default=[0], help="such as 0,1,2")
    add("--fold", type=int, default=0, help="held out")
    add("--root", type=Path, default=Path(default), help="folder of the real sets")
    add("--work", type=Path, required=True, help="folder for trainings and segmented cases")
    add("--results", type=Path, default=RESULTS, help="table of the results")
    return parser.parse_args(words)


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
