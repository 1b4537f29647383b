"""A whole study: what ``medsegdiff fit`` does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsegdiff.bundle.bundle import Bundle, checked_device, device_change, load_bundle
from medsegdiff.bundle.trusted_bundles import trust
from medsegdiff.calibration.calibrate_bundle import calibrate
from medsegdiff.cases.fold import segment_fold
from medsegdiff.cases.one_by_one import raise_for_failures
from medsegdiff.core.atomic_files import digest, read_json, write_text
from medsegdiff.core.errors import UsageError
from medsegdiff.data.fitness import check
from medsegdiff.data.manifest import Manifest, load_manifest
from medsegdiff.evaluation.folder import evaluate
from medsegdiff.planning.plan_bundle import plan, refuse_unfit
from medsegdiff.study.bundle_changes import (
    copy_untrained,
    files_digest,
    shared_out,
    write_joined,
    write_single,
)
from medsegdiff.study.data_files import data_digest, with_folds
from medsegdiff.study.stage_record import Stage, StageRecord, remove, value_digest
from medsegdiff.study.study_folder import StudyFolder
from medsegdiff.study.study_tracking import StudyRun, check_recorder
from medsegdiff.study.time_left import Pace
from medsegdiff.training.checkpoints import epoch_of, latest_checkpoint
from medsegdiff.training.run import check_labels, train

logger = logging.getLogger(__name__)

HOURS = 1.0
"""Hours of training of each network, unless they are given."""

HARMLESS = ("tracking_uri", "experiment_name", "num_workers")
"""Settings that may change without a training being done again."""

Progress = Callable[[str], Callable[[Sequence[Any]], Any]]


def fit(
    data: str | Path,
    output: str | Path,
    *,
    folds: int | None = None,
    fold: int | None = None,
    hours: float | None = None,
    bundle: str | Path | Bundle | None = None,
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    progress: Progress = lambda _: iter,
) -> Bundle:
    """Make a calibrated bundle for a data set, and a report on cases that it was not trained on.

    The data set is checked and a bundle planned for it; a network is trained for each fold, and
    segments the cases that were held out from it; these calibrate the bundle that has all networks.
    Called again with the same folder, it goes on where it was interrupted, and does again only what
    depends on something that has changed.

    Args:
        data: Path of the data set's description, its folder, or a known name.
        output: Folder of the study, which ``load_bundle`` takes as a bundle afterwards.
        folds: Number of folds; None: those of the data set, which are 5 unless it names others.
        fold: Number of the only fold to train; None: all are trained.
        hours: Hours of all trainings together; None: one for each.
        bundle: Name, path or bundle to train instead of a planned one.
        device: Name of a torch device, or ``auto``.
        overrides: Values by configuration id, which replace those of the bundle in training, in
            segmenting, or in both.
        progress: Function that makes a wrapper of items from a description.

    Returns:
        The bundle, with weights and calibration.

    Raises:
        InputError: the data set is not fit to train on, a case cannot be segmented, or ``output``
            holds something else than a study.
        UsageError: a setting is unknown or out of its range, or arguments contradict each other.
    """
    if hours is not None and (hours <= 0.0 or bundle is not None):
        rule = "must be above 0" if bundle is None else "are for a planned bundle"
        remedy = "Give for instance --hours 10, or --set train#trainer#max_epochs=90 for a bundle"
        raise UsageError("--hours", rule, remedy)
    checked_device(device)
    given = None if bundle is None else load_bundle(bundle)
    if given is not None:
        given.parser("train")  # refused before anything is written
    check_recorder(given, overrides or {})
    folder = StudyFolder(Path(output).absolute())
    load_manifest(data)  # refused before the folder is made
    record = StageRecord(folder.root)
    used = with_folds(data, folds, folder.description)
    manifest = load_manifest(used)
    numbers = [fold] if fold is not None else list(range(len(manifest.folds)))
    for number in numbers:
        manifest.split(number)
    study = _Study(folder, record, used, manifest, numbers, given, device, hours, progress)
    return study.run(dict(overrides or {}))


@dataclass
class _Study:
    """The stages of a study."""

    folder: StudyFolder
    record: StageRecord
    data: str
    manifest: Manifest
    folds: list[int]
    given: Bundle | None
    device: str
    hours: float | None
    progress: Progress

    def run(self, overrides: Mapping[str, Any]) -> Bundle:
        """Do all stages that are not done, and return the bundle."""
        hashed = data_digest(self.manifest, self.record.files)
        self.of_data = {"data": hashed}
        first = [self._check(), self._plan()]
        further = 2 * len(self.folds) + 3
        pace = Pace(self.record, len(first) + further, self.hours)
        pace.run(first)
        self.training, self.inference = shared_out(self.folder.untrained, overrides)
        check_labels(self.manifest, self.folder.untrained)
        last = [self._bundle(), self._calibrate(), self._report()]
        pace.run([*(s for k in self.folds for s in (self._train(k), self._segment(k))), *last])
        return self.folder.bundle

    def _check(self) -> Stage:
        def do() -> None:
            refuse_unfit(check(self.manifest, self.progress("checking")), self.manifest)

        return Stage("check", lambda: self.of_data, do)

    def _plan(self) -> Stage:
        hours = HOURS if self.hours is None else self.hours / len(self.folds)
        target = self.folder.untrained.root
        page = self.folder.root / "plan.md"

        def inputs() -> dict[str, str]:
            if self.given is not None:
                return {"bundle": files_digest(self.given)}
            return {**self.of_data, "hours of each fold": value_digest(hours)}

        def do() -> None:
            for path in (target, page, page.with_suffix(".json")):
                remove(path)  # what an interruption, or the plan of another bundle, has left
            if self.given is not None:
                copy_untrained(self.given, target)
                trust(target)
                return
            plan(self.data, target, hours=hours, device=self.device, progress=self.progress)
            for name in ("plan.json", "plan.md"):
                text = (target / name).read_text(encoding="utf-8")
                write_text(self.folder.root / name, text)

        return Stage("plan", inputs, do, (target,))

    def _of_bundle(self) -> dict[str, str]:
        return {"bundle": files_digest(self.folder.untrained)}

    def _train(self, number: int) -> Stage:
        output = self.folder.fold(number)

        def inputs() -> dict[str, str]:
            kept = {key: value for key, value in self.training.items() if key not in HARMLESS}
            settings = {"settings of training": value_digest(kept)}
            return {**self.of_data, **self._of_bundle(), **settings}

        def do() -> None:
            train(
                self.folder.untrained,
                self.data,
                output,
                fold=number,
                resume=(output / "config.yaml").is_file(),  # begins again if none was saved
                device=self.device,
                overrides=self.training,
                **self._tracked().of_fold(number),
            )

        made = (output, self.folder.weights(number))
        return Stage(f"train fold {number}", inputs, do, made, "train")

    def _tracked(self) -> StudyRun:
        """The study's run at MLflow."""
        bundle, name = self.folder.untrained, self.folder.root.name
        run = StudyRun(bundle, self.training, name, self.record.tracked)
        self.record.tracked = run.id
        self.record.write()
        if run.is_new:
            run.describe(self._decisions(), self.manifest, self.of_data["data"])
        return run

    def _decisions(self) -> dict[str, Any]:
        """The decisions of the plan, without their reasons; none for a given bundle."""
        planned = read_json(self.folder.root / "plan.json") or {}
        return {k: v for k, v in planned.get("plan", {}).items() if k != "reasons"}

    def _of_weights(self) -> dict[str, str]:
        return {
            f"weights of fold {number}": digest(self.folder.all_weights(number))
            for number in self.folds
        }

    def _of_inference(self) -> dict[str, str]:
        settings = {"settings of segmenting": value_digest(self.inference)}
        return {**self._of_bundle(), **settings}

    def _segment(self, number: int) -> Stage:
        single, output = self.folder.single(number), self.folder.held_out(number)

        def inputs() -> dict[str, str]:
            weights = {"weights": digest(self.folder.all_weights(number))}
            return {**self.of_data, **self._of_inference(), **weights}

        def do() -> None:
            weights = self.folder.weights(number)
            write_single(self.folder.untrained, weights, self.inference, single)
            changes = {"calibration": "off", "save_members": True, "formats": ["nifti"]}
            on = device_change(self.device)
            raise_for_failures(
                segment_fold(str(single.root), self.data, output, number, changes | on)
            )

        return Stage(f"segment fold {number}", inputs, do, (single.root, output), "segment")

    def _singles(self) -> list[Bundle]:
        return [self.folder.single(number) for number in self.folds]

    def _bundle(self) -> Stage:
        def do() -> None:
            write_joined(self.folder.untrained, self._singles(), self.inference, self.folder.bundle)

        return Stage(
            "bundle",
            lambda: {**self._of_inference(), **self._of_weights()},
            do,
            (self.folder.bundle.root,),
        )

    def _of_held_out(self) -> dict[str, str]:
        return {"held-out cases": digest(self.folder.records(self.folds))}

    def _calibrate(self) -> Stage:
        def inputs() -> dict[str, str]:
            return {"weights": self.folder.bundle.weights_hash(), **self._of_held_out()}

        def do() -> None:
            singles = self._singles() if len(self.folds) > 1 else []
            with self.folder.all_held_out(self.folds) as cases:
                calibrate(
                    self.folder.bundle, self.data, cases, singles=singles, progress=self.progress
                )

        return Stage("calibrate", inputs, do, (self.folder.calibration,))

    def _report(self) -> Stage:
        root = self.folder.root

        def inputs() -> dict[str, str]:
            calibration = {"calibration": digest([self.folder.calibration])}
            return {**self.of_data, **self._of_held_out(), **calibration}

        def do() -> None:
            with self.folder.all_held_out(self.folds) as cases:
                shown = self.progress("evaluating")
                failed = evaluate(self.data, cases, root, study=self._told(), progress=shown)
            raise_for_failures(failed)
            configured = self.folder.fold(self.folds[0]) / "config.yaml"
            files = [*made, configured, root / "plan.md"]
            kept = [file for file in files if file.is_file()]
            report = read_json(root / "report.json")
            self._tracked().finish(report, kept, self.folder.bundle.root)

        made = tuple(root / name for name in ("report.html", "report.json", "cases.csv"))
        return Stage("report", inputs, do, made)

    def _told(self) -> dict[str, Any]:
        """What the report tells of the study besides the figures of the cases."""
        planned = read_json(self.folder.root / "plan.json") or {}
        checked = (read_json(self.folder.calibration) or {}).get("checked", {})
        return {
            "plan": planned.get("plan"),
            "training": [self._of_training(number) for number in self.folds],
            "calibration": checked.get("choice"),
        }

    def _of_training(self, number: int) -> dict[str, Any]:
        output = self.folder.fold(number)
        cases, last = read_json(output / "cases.json"), latest_checkpoint(output)
        return {
            "fold": number,
            "epochs": epoch_of(last) if last else None,
            "training_cases": len(cases["training"]),
            "held_out_cases": len(cases["validation"]),
            "seconds": self.record.seconds(f"train fold {number}"),
        }
