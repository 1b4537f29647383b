"""What ``medsegdiff segment`` leaves of a case: its files, and its record as rows of a table.

Neither ``slicer`` nor ``medsegdiff`` is imported, and the syntax is that of Python 3.9.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DISPLAY_RANGES = {"mean": (0.0, 1.0), "variance": (0.0, 0.25)}
"""Kind of a map -> its possible values, which are shown from the first to the last colour."""

COLUMNS = ("What", "Class", "Value")
"""Headings of the table."""

Row = tuple[str, str, str]


@dataclass(frozen=True)
class CaseMap:
    """A map of a class.

    Attributes:
        kind: Kind of the map, a key of ``DISPLAY_RANGES``.
        of_class: Name of the class, as in the names of files.
        path: Path of the file.
    """

    kind: str
    of_class: str
    path: Path


@dataclass(frozen=True)
class CaseResults:
    """The results of a case.

    Attributes:
        segmentation: Path of the segmentation, ``.seg.nrrd``.
        maps: Maps of mean and variance of each class.
        record: Content of ``<case>_run.json``.
    """

    segmentation: Path
    maps: tuple[CaseMap, ...]
    record: Mapping[str, Any]


def read_results(folder: Path) -> CaseResults:
    """The results in the folder of a case.

    Raises:
        FileNotFoundError: a file is missing.
    """
    case = folder.name
    record = json.loads((folder / f"{case}_run.json").read_text(encoding="utf-8"))
    maps = tuple(
        CaseMap(kind, of_class, folder / f"{case}_{kind}_{of_class}.nii.gz")
        for kind in DISPLAY_RANGES
        for of_class in record["volume_ml"]
    )
    results = CaseResults(folder / f"{case}_seg.seg.nrrd", maps, record)
    for path in (results.segmentation, *(one.path for one in maps)):
        if not path.is_file():
            raise FileNotFoundError(f"{path.name} is missing in the results of the command")
    return results


def rows_of(record: Mapping[str, Any]) -> list[Row]:
    """The rows of the table: review and warnings first, then the figures of each class.

    Args:
        record: Content of ``<case>_run.json``.
    """
    review = record.get("review") or {}
    dice = review.get("expected_dice", {})
    rows = [*_of_case(record, review)]
    for name, volume in record["volume_ml"].items():
        rows.append(("volume", name, _volume(volume)))
        if name in dice:
            rows.append(("expected Dice", name, _dice(dice[name], review["level"])))
        if name in (record.get("present") or {}):
            rows.append(("present", name, f"{100 * record['present'][name]:.0f} %"))
    return rows


def _of_case(record: Mapping[str, Any], review: Mapping[str, Any]) -> Iterator[Row]:
    if "score" in review:
        yield "review score", "", f"{review['score']:.2f}"
    else:
        yield "review score", "", "unknown: the bundle has no calibration that tells it"
    unlike = record.get("unlike_training")
    if unlike:
        told = [f"p = {unlike['p_value']:.2g}", *unlike["reasons"]]
        yield "like the known cases", "", "; ".join(told)
    for warning in record.get("warnings") or ():
        yield "warning", "", warning


def _volume(volume: Mapping[str, Any]) -> str:
    low, high = _digits(volume["interval_90"])
    return f"{_digits([volume['ensemble']])[0]} ml (90 %: {low} to {high})"


def _dice(expected: Mapping[str, Any], level: float) -> str:
    low, high = expected["interval"]
    return f"{expected['dice']:.2f} ({100 * level:.0f} %: {low:.2f} to {high:.2f})"


def _digits(values: Sequence[float]) -> list[str]:
    """Numbers with three significant digits, without exponents."""
    places = [2 - math.floor(math.log10(abs(value))) if value else 0 for value in values]
    return [f"{value:.{max(0, place)}f}" for value, place in zip(values, places)]
