"""Level 0: tables in CSV, which spreadsheets open without taking a cell for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
"""Beginnings of a formula to a spreadsheet, and that of an escaped text."""


def csv_text(rows: Iterable[Iterable[str | int | float]]) -> str:
    r"""Rows as CSV. A text that a spreadsheet could take for a formula gets ``'`` before it.

    Names of cases and files are others' words: a formula among them could read a colleague's other
    cells, or call a program. Numbers stay as they are. A carriage return becomes a space.

    Args:
        rows: Rows of cells, the heading first.

    >>> csv_text([["case", "dice"], ["=1+1", -0.5]])
    "case,dice\n'=1+1,-0.5\n"
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([_escaped(cell) for cell in row] for row in rows)
    return table.getvalue()


def csv_rows(text: str) -> list[list[str]]:
    """The rows of a table that ``csv_text`` made, as texts without their escapes.

    Raises:
        csv.Error: the text is no CSV.

    >>> csv_rows(csv_text([["=1+1", "'a'"]]))
    [['=1+1', "'a'"]]
    """
    read = csv.reader(io.StringIO(text, newline=""), strict=True)
    return [[cell.removeprefix("'") for cell in row] for row in read]


def _escaped(cell: str | int | float) -> str | int | float:
    if not isinstance(cell, str):
        return cell
    return ("'" if cell.startswith(_STARTS) else "") + cell.replace("\r", " ")
