"""The page ``report.html`` of segmented cases: pictures, volumes, and what they mean."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegdiff.data.manifest import class_slug
from medsegdiff.files import read_json, write_text
from medsegdiff.pages import render

MOST_PICTURES = 24
"""More would make the page too heavy to open."""


def write_overview(
    output: Path,
    cases: Sequence[str],
    labels: Mapping[int, str],
    failures: Mapping[str, str],
) -> None:
    """Write ``output/report.html`` over cases that have been segmented there.

    Args:
        output: holds a folder for each case.
        cases: names of the cases to show; those without a record are left out.
        labels: class number -> name.
        failures: failed input or case -> reason.
    """
    found = (read_json(output / case / f"{case}_run.json") for case in cases)
    records = [record for record in found if record is not None]
    if not records:
        return
    shown = records[:MOST_PICTURES]
    first: dict[str, Any] = records[0]
    page = render(
        "overview",
        records=records,
        shown=len(shown),
        pictures={record["case"]: _picture(output, record["case"]) for record in shown},
        labels={class_slug(name): name for value, name in labels.items() if value},
        failures=failures,
        **{name: first[name] for name in ("bundle", "members", "steps", "sampler", "seed")},
    )
    write_text(output / "report.html", page)


def _picture(output: Path, case: str) -> str:
    content = (output / case / f"{case}_preview.png").read_bytes()
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
