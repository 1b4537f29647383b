"""The meaning of the values in a label file, where they are not class numbers.

A mask may be stored as 0 and 255, BraTS stores a tumour as 4, and a mask saved as JPEG has values
in between. The key ``label_values`` of a description names them: ``{"0-127": 0, "128-255": 1}``.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import UNKNOWN_CLASS

LabelValues = tuple[tuple[int, int, int], ...]
"""Lowest and highest value in the file, both included, and their class number."""


WHOLE = 1e-3
"""Greatest distance of a label value from the whole number that it stands for."""


_LARGEST_TABLE = 2**20
"""Greatest label value that classes are looked up for in a table."""


class UnknownValuesError(InputError):
    """A label file holds values that are no classes; ``found`` are all its values."""

    def __init__(
        self, subject: object, rule: str, remedy: str, found: tuple[int, ...] = ()
    ) -> None:
        super().__init__(subject, rule, remedy)
        self.found = found


def nearly_whole(values: NDArray[Any]) -> NDArray[Any]:
    """The values, same shape, those within ``WHOLE`` of a whole number as this number.

    >>> nearly_whole(np.array([0.9999, 2.0, 0.5])).tolist()
    [1.0, 2.0, 0.5]
    """
    if not np.issubdtype(values.dtype, np.floating):
        return values
    whole = np.rint(values)
    return np.where(np.abs(values - whole) <= WHOLE, whole, values)


def suggested(values: Collection[int], labels: Collection[int]) -> str:
    """What to add to a description whose label files hold other values than its classes.

    Args:
        values: Values of all label files.
        labels: Class numbers of the data set.

    >>> suggested([0, 255], [0, 1])
    'Add "label_values": {"0": 0, "255": 1} to the dataset.json'
    """
    ordered = sorted({0, *values})
    if len(ordered) <= len(labels):
        pairs = ", ".join(f'"{value}": {i}' for i, value in enumerate(ordered))
        return f'Add "label_values": {{{pairs}}} to the dataset.json'
    named = ", ".join(f'"{i}": "class {i}"' for i in range(1, len(ordered)))
    remedy = f'Name all classes in the dataset.json: "labels": {{"0": "background", {named}}}'
    if ordered == list(range(len(ordered))):
        return remedy
    pairs = ", ".join(f'"{value}": {i}' for i, value in enumerate(ordered))
    return f'{remedy}, "label_values": {{{pairs}}}'


def leave_out(ranges: LabelValues, labels: Collection[int], ignored: int | None) -> LabelValues:
    """Ranges that lead voxels of the class ``ignored`` to ``UNKNOWN_CLASS``, and others on.

    Args:
        ranges: Ranges of values of each class; empty: the files hold class numbers.
        labels: Class numbers of the data set, without the one that is ignored.
        ignored: Class number that is left out of loss and metrics, or None.

    >>> leave_out((), [0, 1], 2)
    ((0, 0, 0), (1, 1, 1), (2, 2, 255))
    """
    if ignored is None:
        return ranges
    given = ranges or tuple((number, number, number) for number in (*labels, ignored))
    return tuple((low, high, UNKNOWN_CLASS if n == ignored else n) for low, high, n in given)


def parse_label_values(value: Any, labels: Collection[int], file: Path) -> LabelValues:
    """The ranges of values of each class, from the key ``label_values`` of a description.

    Args:
        value: Value of the key; None: the label files hold class numbers.
        labels: Class numbers of the data set.
        file: Path of the description, for messages.

    Raises:
        InputError: a key is no value or range, a class is not in ``labels``, or ranges overlap.
    """
    if value is None:
        return ()
    remedy = 'Write {"0": 0, "255": 1} or {"0-127": 0, "128-255": 1}'
    if not isinstance(value, dict):
        raise InputError(file, f"'label_values' must be an object, not {value!r}", remedy)
    ranges = []
    for key, number in value.items():
        ends = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", str(key))
        if not ends or type(number) is not int or number not in labels:
            rule = "'label_values' must lead from a value or range to one of 'labels', not"
            raise InputError(file, f"{rule} {key!r}: {number!r}", remedy)
        ranges.append((int(ends[1]), int(ends[2] or ends[1]), number))
    ranges.sort()
    overlap = any(after[0] <= before[1] for before, after in itertools.pairwise(ranges))
    if overlap or any(high < low for low, high, _ in ranges):
        raise InputError(file, "ranges in 'label_values' overlap or are empty", remedy)
    return tuple(ranges)


def renumber(values: NDArray[Any], ranges: LabelValues, source: object) -> NDArray[Any]:
    """The class number of every value of a label file, same shape.

    Args:
        values: Values of the file, any shape.
        ranges: Ranges of values of each class; empty: the values are returned as they are.
        source: Path of the file, for messages.

    Raises:
        InputError: a value is in none of the ranges.

    >>> renumber(np.array([0, 4, 2]), ((0, 0, 0), (2, 2, 2), (4, 4, 3)), "seg.nii").tolist()
    [0, 3, 2]
    """
    values = nearly_whole(values)
    if not ranges or not values.size:
        return values
    found = np.unique(values)
    lows, highs, numbers = (np.array(column) for column in zip(*sorted(ranges), strict=True))
    place = np.searchsorted(lows, found, side="right") - 1
    unknown = found[(place < 0) | ~(found <= highs[place])]  # NaN is in no range
    if len(unknown):
        rule = (
            f"label values {unknown[:5].tolist()} are not among the 'label_values' of the data set"
        )
        remedy = "Name their classes there. Is it a file of this set, as it was downloaded?"
        raise UnknownValuesError(source, rule, remedy, tuple(found.astype(int).tolist()))
    of_found = numbers[place].astype(np.uint8)
    if found[-1] > _LARGEST_TABLE:
        return of_found[np.searchsorted(found, values)]
    table = np.zeros(int(found[-1]) + 1, np.uint8)
    table[found.astype(np.intp)] = of_found
    return table[values.astype(np.intp, copy=False)]
