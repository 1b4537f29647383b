"""The table of all cases of a folder, ``cohort.csv``: volumes, expected Dice, what to look at."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegdiff.cases.run_record import volumes_of_places
from medsegdiff.core.atomic_files import write_text, written_aside
from medsegdiff.core.tables import csv_text

Cell = str | int | float


def write_cohort_table(
    output: Path, records: Sequence[Mapping[str, Any]], failures: Mapping[str, str]
) -> None:
    """Write ``cohort.csv``, one row a case, and ``cohort.parquet`` where pyarrow is installed.

    Columns: ``case``, ``error``, ``seconds``; of each class ``<class>_ml``, its 90 % interval
    ``_ml_low`` and ``_ml_high`` (ml; voxels' areas or counts where the size of a voxel is unknown),
    ``_present`` (probability), ``_expected_dice`` with ``_low`` and ``_high``; ``review_score``,
    ``unlike_training_p`` and ``warnings``; of each class at each named place that was cut out of a
    scan ``<place>_<class>_ml`` with its interval. What is not known is empty.

    Args:
        output: Folder that holds a folder for each case.
        records: Contents of ``<case>_run.json``.
        failures: Failed input or case -> reason.
    """
    rows = [_row(record) for record in records]
    rows += [{"case": name, "error": reason} for name, reason in failures.items()]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table: list[list[Cell]] = [[*columns]]
    table += [[row.get(name, "") for name in columns] for row in rows]
    write_text(output / "cohort.csv", csv_text(table))
    if importlib.util.find_spec("pyarrow"):
        _write_parquet(output / "cohort.parquet", rows, columns)


def _row(record: Mapping[str, Any]) -> dict[str, Cell]:
    row: dict[str, Cell] = {"case": record["case"], "error": ""}
    row["seconds"] = round(float(record["seconds"]["total"]), 3)
    review, unlike = record.get("review"), record.get("unlike_training")
    for slug, volume in record["volume_ml"].items():
        row |= _volume(slug, volume["ensemble"], volume["interval_90"])
        if record.get("present"):
            row[f"{slug}_present"] = record["present"][slug]
        if review:
            row |= _expected(slug, review["expected_dice"].get(slug))
    if review:
        row["review_score"] = review["score"]
    if unlike:
        row["unlike_training_p"] = unlike["p_value"]
    row["warnings"] = "; ".join(record.get("warnings", ()))
    for place, volumes in volumes_of_places(record).items():
        for slug, (volume, interval) in volumes.items():
            row |= _volume(f"{place}_{slug}", volume, interval)
    return row


def _volume(name: str, volume: float, interval: Sequence[float]) -> dict[str, Cell]:
    low, high = interval
    return {f"{name}_ml": volume, f"{name}_ml_low": low, f"{name}_ml_high": high}


def _expected(slug: str, dice: Mapping[str, Any] | None) -> dict[str, Cell]:
    if dice is None:
        return {}
    low, high = dice["interval"]
    name = f"{slug}_expected_dice"
    return {name: dice["dice"], f"{name}_low": low, f"{name}_high": high}


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Cell]], columns: list[str]) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns})
    with written_aside(path) as aside:
        parquet.write_table(table, aside)
