"""The report as one self-contained page: figures, their meaning, and their reliability."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medsegdiff.core.atomic_files import write_text
from medsegdiff.core.errors import InputError, reason_of
from medsegdiff.core.types import LengthUnit
from medsegdiff.data.manifest import Case, Manifest
from medsegdiff.data.predictions import DAMAGE, foreground
from medsegdiff.evaluation.case_view import read_case_view
from medsegdiff.evaluation.charts import diversity_chart, doubt_chart, reliability_charts
from medsegdiff.evaluation.gallery import VARIANCE_TOP, Picture, small_multiples
from medsegdiff.evaluation.summary import RESAMPLES
from medsegdiff.evaluation.viewer import DIFFERENCES, is_volume, niivue, volumes
from medsegdiff.evaluation.wording import sentences
from medsegdiff.metrics.table import GROUPS, METRICS, TABLE, Metric
from medsegdiff.viz.pages import render
from medsegdiff.viz.pictures import COLOURS

WORST, BEST, VIEWED = 12, 3, 3
"""Number of worst and of best cases shown as pictures, and of worst cases shown as volumes."""


def write_html(
    path: Path,
    report: Mapping[str, Any],
    manifest: Manifest,
    cases: Sequence[Case],
    predictions: Path,
) -> None:
    """Write the page of a report.

    Args:
        path: Path of the page.
        report: Report from :func:`medsegdiff.evaluation.folder.build_report`, with NaN for
            undefined figures, and with ``failures``, ``without_prediction``, ``without_reference``.
        manifest: Data set, from which the images are read again for the pictures.
        cases: Cases that were evaluated, in any order.
        predictions: Folder of the segmented cases.
    """
    labels, unit = report["settings"]["labels"], unit_in_words(report["settings"]["unit"])
    by_id = {case.id: case for case in cases}
    worst, best = ranked(report["cases"])

    def pictures(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "record": r,
                "picture": _or_reason(case_picture, by_id[r["case"]], manifest, predictions),
            }
            for r in records
        ]

    viewed = _viewed(worst, by_id, manifest, predictions)
    page = render(
        "report",
        report=report,
        summary=report["summary"],
        labels=labels,
        columns=[*labels, "mean"] if len(labels) > 1 else list(labels),
        colours={slug: COLOURS[i % len(COLOURS)] for i, slug in enumerate(labels)},
        table={n: in_unit(one, unit) for n, one in TABLE.items() if n in report["summary"]},
        unit=unit,
        groups=grouped([one.name for one in METRICS if one.name in report["summary"]]),
        headings=GROUPS,
        sentences=sentences(report),
        reliability=reliability_charts(report),
        doubt=doubt_chart(report),
        diversity=diversity_chart(report),
        guarantee=report["summary"].get("guarantee"),
        worst=pictures(worst),
        best=pictures(best),
        variance_top=VARIANCE_TOP[len(labels) > 1],
        volumes=viewed,
        differences=DIFFERENCES,
        niivue=niivue() if viewed else None,
        patients=any(record["patient"] != record["case"] for record in report["cases"]),
        resamples=RESAMPLES,
    )
    write_text(path, page)


def unit_in_words(unit: LengthUnit | Sequence[LengthUnit]) -> str:
    """The unit of lengths, or those of different cases.

    >>> unit_in_words("pixel"), unit_in_words(["mm", "pixel"])
    ('pixels', 'mm or pixels')
    """
    units = [unit] if isinstance(unit, str) else unit
    return " or ".join("pixels" if one == "pixel" else one for one in units)


def in_unit(metric: Metric, unit: str) -> Metric:
    """A metric with its lengths in this unit, in words."""
    if metric.unit != "mm":
        return metric
    return replace(metric, unit=unit, heading=metric.heading.replace("(mm)", f"({unit})"))


def ranked(
    records: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The cases of lowest and of highest mean Dice, the extreme ones first; no case is in both."""
    ordered = sorted(records, key=lambda record: (record["dice"]["mean"], record["case"]))
    return ordered[:WORST], ordered[WORST:][: -BEST - 1 : -1]


def grouped(names: Sequence[str]) -> dict[str, list[str]]:
    """Group of metrics (see ``metrics.table``) -> its metrics, in order; every metric is in one."""
    groups: dict[str, list[str]] = {kind: [] for kind in GROUPS}
    for name in names:
        groups[TABLE[name].group].append(name)
    return {kind: members for kind, members in groups.items() if members}


def case_picture(case: Case, manifest: Manifest, predictions: Path) -> Picture:
    """The small multiples of a case, read again from its files.

    Raises:
        InputError: a file is missing, damaged, or on another grid.
    """
    return small_multiples(read_case_view(case, manifest, predictions), tuple(foreground(manifest)))


def _viewed(
    records: Sequence[Mapping[str, Any]],
    cases: Mapping[str, Case],
    manifest: Manifest,
    predictions: Path,
) -> list[dict[str, Any]]:
    """The first few cases as volumes for the viewer, without photographs and planes."""
    labels = {value: manifest.labels[value] for value in foreground(manifest)}

    def volume(case: Case) -> dict[str, Any] | None:
        shown = read_case_view(case, manifest, predictions)
        return volumes(shown, labels) if is_volume(shown) else None

    viewed = []
    for record in records[:VIEWED]:
        told = _or_reason(volume, cases[record["case"]])
        if isinstance(told, dict):
            viewed.append({"case": record["case"], "dice": record["dice"]["mean"], **told})
    return viewed


def _or_reason(show: Callable[..., Any], *of: Any) -> Any:
    """The result of ``show``, or the reason why it failed; a case's figures do not need it."""
    try:
        return show(*of)
    except (InputError, *DAMAGE) as error:
        return reason_of(error)
