"""The page ``report.html`` of segmented cases: pictures, volumes, and their explanation."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegdiff.cases.run_record import volumes_of_places
from medsegdiff.core.atomic_files import write_text
from medsegdiff.core.errors import InputError, reason_of
from medsegdiff.core.sampling_settings import SHOWN
from medsegdiff.data.manifest import class_slug
from medsegdiff.triage.familiarity import ALPHA
from medsegdiff.viz.pages import render

MOST_PICTURES = 24
"""Greatest number of cases shown; more would make the page too large to open."""


def write_overview(
    output: Path,
    records: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    labels: Mapping[int, str],
    failures: Mapping[str, str],
) -> None:
    """Write ``output/report.html`` about the cases that have been segmented there.

    Args:
        output: Folder that holds a folder for each case.
        records: Contents of ``<case>_run.json`` of the cases to show.
        settings: Settings that the cases share: bundle, members, steps, sampler, seed, fusion; of
            another program's predictions ``program``, too.
        labels: Class number -> name.
        failures: Failed input or case -> reason, as :func:`without_paths` gives them.
    """
    if not records:
        return
    records = sorted(records, key=review_order)
    shown = records[:MOST_PICTURES]
    page = render(
        "overview",
        records=records,
        shown=len(shown),
        pictures={record["case"]: _picture(output, record["case"]) for record in shown},
        labels={class_slug(name): name for value, name in labels.items() if value},
        places={record["case"]: volumes_of_places(record) for record in records},
        failures=failures,
        triaged=any(record.get("review") or record.get("unlike_training") for record in records),
        alpha=ALPHA,
        program=settings.get("program"),
        guaranteed=all(record.get("guarantee") for record in records),
        **{name: settings[name] for name in SHOWN},
    )
    write_text(output / "report.html", page)


def complete_cases(output: Path) -> list[str]:
    """Names of the cases of a folder whose record, which is written last, is there."""
    found = (path for path in output.glob("*/*_run.json"))
    return sorted(p.parent.name for p in found if p.name == f"{p.parent.name}_run.json")


def review_order(record: Mapping[str, Any]) -> tuple[float, float]:
    """Key that sorts records by how soon someone should look at them, the soonest first.

    The lower end of the expected Dice comes first, then the p-value; cases without are last.
    """
    review, unlike = record.get("review"), record.get("unlike_training")
    return (review["score"] if review else 1.0, unlike["p_value"] if unlike else 1.0)


def without_paths(errors: Mapping[str, InputError], cases: Sequence[str]) -> dict[str, str]:
    """Failures and their reasons without paths, for a page that others see.

    A path may contain a patient's name.

    Args:
        errors: Failed input or case -> error.
        cases: Names of the cases; every other name in ``errors`` is an input.
    """
    inputs = (name for name in errors if name not in cases)
    names = {name: f"unreadable input {n}" for n, name in enumerate(inputs, start=1)}
    return {names.get(name, name): reason_of(error) for name, error in errors.items()}


def _picture(output: Path, case: str) -> str:
    path = output / case / f"{case}_preview.png"
    content = path.read_bytes() if path.is_file() else b""
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
