"""Compare the segmented cases of a folder with the references of a data set."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegdiff.core.atomic_files import write_json, write_text
from medsegdiff.core.errors import InputError, UsageError, reason_of
from medsegdiff.core.sampling_settings import SHOWN
from medsegdiff.core.tables import csv_text
from medsegdiff.data.manifest import Case, Manifest, load_manifest
from medsegdiff.data.predictions import DAMAGE, foreground, matching
from medsegdiff.evaluation.case_figures import CaseResult, evaluate_case
from medsegdiff.evaluation.report import write_html
from medsegdiff.evaluation.summary import count_undefined, summarise
from medsegdiff.metrics.calibration_error import BINS, ROI_VOXELS

logger = logging.getLogger(__name__)

Progress = Callable[[Sequence[Case]], Iterable[Case]]
"""Wrapper of a sequence of cases that may show how many are done."""

TOLERANCE_MM = 1.0


def evaluate(
    data: str | Path,
    predictions: str | Path,
    output: str | Path,
    *,
    tolerance_mm: float = TOLERANCE_MM,
    study: Mapping[str, Any] | None = None,
    progress: Progress = iter,
) -> dict[str, str]:
    """Write ``report.json``, ``cases.csv`` and ``report.html``.

    Cases without a prediction and predictions without a reference are left out, and counted.

    Args:
        data: Description of the data set: a ``dataset.json``, its folder, or a known name.
        predictions: Folder with one folder per case, as ``segment`` writes it. A folder without
            files named after it, such as an earlier report, is not a case.
        output: Folder of the report; it is created if needed, and may lie within ``predictions``.
        tolerance_mm: Distance in millimetres that the surface Dice counts as agreement, 0 or more.
        study: Entries of the report on the study that the cases are of, or None: ``plan``;
            ``training``, of each fold; ``calibration``, the choice of its method.
        progress: Wrapper of the sequence of cases.

    Returns:
        Failed case -> reason; the other cases are in the report. The failures are also written to
        ``failures.json``, which exists only if a case failed. If all cases failed, there is no
        report, and an earlier one is removed.

    Raises:
        InputError: the data set cannot be read, or no prediction has a reference in it.
        UsageError: ``output`` is the folder of the predictions, or the tolerance is below 0.
    """
    if not 0.0 <= tolerance_mm < math.inf:
        rule = f"must be a number of millimetres of 0 or more, not {tolerance_mm}"
        raise UsageError("tolerance_mm", rule, "Give for instance 1.0")
    predictions, output = Path(predictions), Path(output)
    if output.resolve() == predictions.resolve():
        rule = "holds the predictions, whose own report.html the report would replace"
        raise UsageError(output, rule, f"Choose another folder, such as {output / 'report'}")
    manifest = load_manifest(data)
    cases, left_out = matching(manifest, predictions)
    results: list[CaseResult] = []
    failures: dict[str, str] = {}
    told: dict[str, str] = {}  # failures for the report, without paths
    for case in progress(cases):
        try:
            folder = predictions / case.id
            results.append(evaluate_case(case, folder, manifest, tolerance_mm=tolerance_mm))
        except InputError as error:
            failures[case.id] = str(error)
            told[case.id] = reason_of(error)
        except DAMAGE as error:
            logger.debug("%s failed", case.id, exc_info=True)
            failures[case.id] = f"{case.id}: {type(error).__name__}: {error}".split("\n")[0]
            told[case.id] = reason_of(error)
    for name in ("failures.json", "report.json", "cases.csv", "report.html"):
        (output / name).unlink(missing_ok=True)
    if failures:
        write_json(output / "failures.json", failures)
    if results:
        report = build_report(manifest, results, tolerance_mm) | left_out | {"failures": told}
        report |= study or {}
        write_json(output / "report.json", _null_for_nan(report))
        write_text(output / "cases.csv", _csv(results, patient_names(manifest)))
        write_html(output / "report.html", report, manifest, cases, predictions)
    return failures


def build_report(
    manifest: Manifest, results: Sequence[CaseResult], tolerance_mm: float
) -> dict[str, Any]:
    """``settings``, ``cases``, ``summary`` and ``undefined`` as nested dictionaries, with NaN."""
    classes = foreground(manifest)
    slugs = list(classes.values())
    runs = [result.run for result in results]
    names = patient_names(manifest)
    settings = {name: _common([run.get(name) for run in runs]) for name in (*SHOWN, "calibrated")}
    settings |= {
        "data": manifest.name,
        "labels": {slug: manifest.labels[value] for value, slug in classes.items()},
        "raters": manifest.raters,
        "tolerance_mm": tolerance_mm,
        "unit": _common([result.unit for result in results]),
        "bins": BINS,
        "roi_voxels": ROI_VOXELS,
    }
    return {
        "settings": settings,
        "cases": [_case_record(result, names) for result in results],
        "summary": summarise(results, slugs),
        "undefined": count_undefined(results, slugs),
    }


def _common(values: Sequence[Any]) -> Any:
    """The value that all cases share, or the list of the different values."""
    different = [value for i, value in enumerate(values) if value not in values[:i]]
    return different[0] if len(different) == 1 else different


def patient_names(manifest: Manifest) -> dict[str, str]:
    """Patient -> name in the report, which does not reveal the patient's identity.

    It is the case's name, or a number in the order of cases if the description names the patient.
    """
    names: dict[str, str] = {}
    for case in manifest.cases:
        number = f"patient {len(names) + 1}"
        names.setdefault(case.patient, case.id if case.patient == case.id else number)
    return names


def _case_record(result: CaseResult, names: Mapping[str, str]) -> dict[str, Any]:
    record: dict[str, Any] = {"case": result.case, "patient": names[result.patient]}
    record |= result.values
    record["uncertainty"] = result.uncertainty
    if result.members_dice:
        record["members"] = {"dice": result.members_dice}
    if result.anchor_dice:
        record["anchor"] = {"dice": result.anchor_dice}
    if result.planes:
        record["planes"] = result.planes
    if result.guarantee:
        record["guarantee"] = result.guarantee
    return record


def _csv(results: Sequence[CaseResult], names: Mapping[str, str]) -> str:
    """CSV table with one row per case; undefined figures are blank."""
    columns = [(metric, slug) for metric, by in results[0].values.items() for slug in by]
    rows: list[list[str | float]] = [
        ["case", "patient", *(f"{metric}_{slug}" for metric, slug in columns)]
    ]
    for result in results:
        numbers = [result.values[metric][slug] for metric, slug in columns]
        shown = ["" if math.isnan(number) else number for number in numbers]
        rows.append([result.case, names[result.patient], *shown])
    return csv_text(rows)


def _null_for_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _null_for_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_null_for_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
