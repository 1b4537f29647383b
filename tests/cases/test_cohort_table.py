"""The table of all cases of a folder, and the lines for scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from medsegdiff.cases.case_line import case_line, printed
from medsegdiff.cases.cohort_table import write_cohort_table
from medsegdiff.core.errors import InputError
from medsegdiff.core.tables import csv_rows

RECORD = {
    "case": "=1+1",
    "seconds": {"total": 1.25},
    "volume_ml": {"head": {"ensemble": 2.5, "mean_of_members": 2.4, "interval_90": [2.0, 3.0]}},
    "present": {"head": 0.75},
    "review": {
        "expected_dice": {"head": {"dice": 0.875, "interval": [0.5, 0.9375]}},
        "level": 0.9,
        "score": 0.5,
    },
    "unlike_training": {"p_value": 0.03125, "reasons": []},
    "warnings": ["first", "second"],
}
EXPECTED = {
    "case": "=1+1",
    "error": "",
    "seconds": "1.25",
    "head_ml": "2.5",
    "head_ml_low": "2.0",
    "head_ml_high": "3.0",
    "head_present": "0.75",
    "head_expected_dice": "0.875",
    "head_expected_dice_low": "0.5",
    "head_expected_dice_high": "0.9375",
    "review_score": "0.5",
    "unlike_training_p": "0.03125",
    "warnings": "first; second",
}


def test_a_row_for_each_case(tmp_path: Path) -> None:
    bare = {**RECORD, "case": "b", "review": None, "unlike_training": None, "present": None}
    write_cohort_table(tmp_path, [RECORD, bare], {"c": "is empty"})
    header, first, second, third = csv_rows((tmp_path / "cohort.csv").read_text())
    assert dict(zip(header, first, strict=True)) == EXPECTED
    unknown = [name for name in header if "present" in name or "expected" in name]
    left = dict(zip(header, second, strict=True))
    assert {left[name] for name in (*unknown, "review_score", "unlike_training_p")} == {""}
    assert (left["head_ml"], third[:2]) == ("2.5", ["c", "is empty"])
    table = parquet.read_table(tmp_path / "cohort.parquet").to_pydict()
    assert list(table) == header and table["case"] == ["=1+1", "b", "c"]
    assert table["head_expected_dice"] == [0.875, None, None]


def test_each_side_of_a_whole_scan_has_columns_of_its_own(tmp_path: Path) -> None:
    location: dict[str, dict[str, Any]] = {
        "volume_ml": {"left": {"head": 1.0}, "right": {"head": 1.5}},
        "volume_interval_90_ml": {"left": {"head": [0.9, 1.2]}, "right": {"head": [1.4, 1.7]}},
    }
    alone = {key: {"": of["left"]} for key, of in location.items()}
    records = [{**RECORD, "location": location}, {**RECORD, "case": "b", "location": alone}]
    write_cohort_table(tmp_path, records, {})
    header, first, second = csv_rows((tmp_path / "cohort.csv").read_text())
    further = header[len(EXPECTED) :]
    assert further == [
        f"{s}_head_ml{end}" for s in ("left", "right") for end in ("", "_low", "_high")
    ]
    assert first[len(EXPECTED) :] == ["1.0", "0.9", "1.2", "1.5", "1.4", "1.7"]
    assert set(second[len(EXPECTED) :]) == {""}  # a single place is the whole of what is told


def test_a_line_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a_run.json").write_text(json.dumps(RECORD))
    tell = printed(tmp_path)
    tell("a", None)
    tell("x.nii", InputError("x.nii", "is empty", "Get it again"))
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == case_line(tmp_path, "a", None)
    assert first["ok"] and first["volume_ml"] == RECORD["volume_ml"]
    assert second == {"case": "x.nii", "ok": False, "error": "is empty. Get it again"}
