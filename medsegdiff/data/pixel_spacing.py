"""The size of photographs' pixels, which their files do not say: key ``spacing``.

A number (mm, of all pixels), one a file axis (columns, then rows), a table from cases to such, or
the name of a CSV file: a row a case, its name and one or two numbers, with or without a heading.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry

PixelSpacing = tuple[float, float]
"""Size of a pixel along columns and rows, in mm."""

_REMEDY = 'Write "spacing": 0.1, [0.1, 0.2], {"case": 0.1, ...} or the name of a CSV file'


def parse_spacing(
    value: Any, cases: Collection[str], root: Path, file: Path
) -> dict[str, PixelSpacing]:
    """Size of a pixel of each case; of cases that a table leaves out there is none.

    Args:
        value: Value of the key ``spacing``; None: no case has one.
        cases: Names of the cases.
        root: Folder that the name of a CSV file starts from.
        file: Path of the description, for messages.

    Raises:
        InputError: It is none of the forms, a size is not above 0, or a case is not known.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        file = root / value
        value = _read_table(file, cases)
    if isinstance(value, dict):
        strangers = sorted(set(value) - set(cases))
        if strangers:
            rule = f"'spacing' names cases that are not there: {', '.join(strangers[:3])}"
            raise InputError(file, rule, f"Cases are called {', '.join(sorted(cases)[:3])} ...")
        return {case: _size(one, file) for case, one in value.items()}
    return dict.fromkeys(cases, _size(value, file))


def with_spacing(geometry: Geometry, spacing: PixelSpacing | tuple[()]) -> Geometry:
    """The geometry with pixels of this size; as it is if there is none, or it is in mm already.

    >>> with_spacing(Geometry((2, 3), np.eye(4), unit="pixel"), (0.5, 0.25)).spacing
    (0.5, 0.25)
    """
    if not spacing or geometry.unit == "mm":
        return geometry
    return replace(geometry, affine=np.diag([*spacing, 1.0, 1.0]), unit="mm")


def _size(value: Any, file: Path) -> PixelSpacing:
    sizes = value if isinstance(value, list) else [value, value]
    numbers = [s for s in sizes if isinstance(s, int | float) and type(s) is not bool]
    if len(numbers) != 2 or len(sizes) != 2 or not all(0 < s < math.inf for s in numbers):
        raise InputError(file, f"'spacing' must be sizes above 0 in mm, not {value!r}", _REMEDY)
    return float(numbers[0]), float(numbers[1])


def _read_table(file: Path, cases: Collection[str]) -> dict[str, Any]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(file, f"'spacing' cannot be read ({error})", _REMEDY) from None
    if rows and rows[0][0] not in cases:
        rows = rows[1:]  # the heading
    try:
        sizes = {row[0]: [float(cell) for cell in row[1:]] for row in rows}
    except ValueError as error:
        raise InputError(file, f"'spacing' holds no number ({error})", _REMEDY) from None
    return {case: row[0] if len(row) == 1 else row for case, row in sizes.items()}
