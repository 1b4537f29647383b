"""Tables that a spreadsheet opens."""

from __future__ import annotations

import csv
import io

import pytest

from medsegdiff.core.tables import csv_rows, csv_text

FORMULAS = ("=1+1", "+1", "-1+2", "@SUM(A1)", "\t=1", "\r=1", "\n=1")


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_begins_as_a_formula(text: str) -> None:
    ((cell, number),) = csv.reader(io.StringIO(csv_text([[text, -1.5]]), newline=""))
    assert cell == "'" + text.replace("\r", " ")
    assert number == "-1.5"


@pytest.mark.parametrize("text", [*FORMULAS[:5], "\n=1", "'a", "''", "a=1", "", 'a "b", c', "1\n2"])
def test_texts_come_back_as_they_were(text: str) -> None:
    assert csv_rows(csv_text([[text, "b"]])) == [[text, "b"]]
