"""The key: a table that says which image each case is, written only at the user's request."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.errors import InputError
from medsegdiff.core.tables import csv_rows, csv_text
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.dicom import Series

COLUMNS = ("case", "study_instance_uid", "series_instance_uid", "series_number", "source")


def write_key(path: Path, cases: Iterable[CaseInput]) -> None:
    """Write one row per case to a CSV file that only its owner can read; keep other cases' rows.

    The row of a DICOM series holds its identifiers, its number, and the folder, zip or server that
    it lies in. The row of any other case holds its file.

    Raises:
        InputError: the path is a file that is not such a table.
    """
    rows = _read(path) | {case.id: _row(case) for case in cases}
    with written_aside(path) as aside:
        aside.write_text(csv_text([COLUMNS, *rows.values()]), encoding="utf-8")
        aside.chmod(0o600)


def _row(case: CaseInput) -> list[str]:
    first = case.image[0]
    if not isinstance(first, Series):
        return [case.id, "", "", "", str(first)]
    number = "" if first.number is None else str(first.number)
    folder = first.files[0].parent
    given = Path(first.source)
    source = folder if given.is_dir() and folder.is_relative_to(given) else first.source
    return [case.id, first.study_uid, first.uid, number, str(source)]


def _read(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        return {}
    try:
        header, *rows = csv_rows(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, csv.Error):
        header, rows = [], []
    if tuple(header) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        rule = "exists, and is not a key that an earlier call wrote"
        raise InputError(path, rule, "Choose another file for --key")
    return {row[0]: row for row in rows}
