"""The table that says which image each case is."""

from __future__ import annotations

import csv
import stat
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medsegdiff.cases.inputs import found_cases
from medsegdiff.cases.key import COLUMNS, write_key
from medsegdiff.core.errors import InputError
from medsegdiff.phantoms.cohort import write_dicom_series
from tests.conftest import MakeNifti


def write(folder: Path, number: int) -> pydicom.Dataset:
    volume = np.zeros((4, 5, 3), np.uint16)
    return pydicom.dcmread(write_dicom_series(volume, np.eye(4), folder, number=number)[0])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as table:
        return list(csv.DictReader(table))


def test_each_case_has_a_row_with_identifiers_and_place(
    tmp_path: Path, make_nifti: MakeNifti
) -> None:
    headers = {n: write(tmp_path / "study" / f"folder, {n}", n) for n in (3, 7)}
    scan, key, out = make_nifti("scan.nii.gz"), tmp_path / "private" / "key.csv", tmp_path / "out"
    with found_cases([tmp_path / "study", scan], out) as (cases, _):
        write_key(key, cases)
        assert [row["case"] for row in rows(key)] == [case.id for case in cases]
    by_number = {row["series_number"]: row for row in rows(key)}
    for number, header in headers.items():
        row = by_number[str(number)]
        assert row["study_instance_uid"] == header.StudyInstanceUID
        assert row["series_instance_uid"] == header.SeriesInstanceUID
        assert row["source"] == str(tmp_path / "study" / f"folder, {number}")
        assert row["case"].endswith(f"_{number}")
    assert by_number[""]["source"] == str(scan)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_rows_of_other_calls_stay(tmp_path: Path) -> None:
    key = tmp_path / "key.csv"
    for number in (1, 2, 1):
        write(tmp_path / f"{number}", number)
        with found_cases([tmp_path / f"{number}"], tmp_path / "out") as (cases, _):
            write_key(key, cases)
    assert [row["series_number"] for row in rows(key)] == ["1", "2"]


def test_a_name_is_no_formula_to_a_spreadsheet(tmp_path: Path, make_nifti: MakeNifti) -> None:
    scan, key = make_nifti("=cmd|x!A1.nii.gz"), tmp_path / "key.csv"
    for _ in range(2):  # a name that is read again is escaped once
        with found_cases([scan], tmp_path / "out") as (cases, _failures):
            write_key(key, cases)
        (row,) = rows(key)
        assert row["case"] == "'=cmd|x!A1"


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", ",".join(COLUMNS) + "\na,b\n", "\x00"])
def test_another_file_is_not_overwritten(content: str, tmp_path: Path) -> None:
    key = tmp_path / "key.csv"
    key.write_text(content)
    with pytest.raises(InputError, match=r"key\.csv: exists.*--key"):
        write_key(key, [])
    assert key.read_text() == content
