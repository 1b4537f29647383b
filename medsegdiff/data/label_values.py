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

LabelValues = tuple[tuple[int, int, int], ...]
"""Lowest and highest value in the file, both included, and their class number."""


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
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", str(key))
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
    if not ranges:
        return values
    classes = np.zeros(values.shape, dtype=np.uint8)
    known = np.zeros(values.shape, dtype=bool)
    for low, high, number in ranges:
        within = values == low if low == high else (values >= low) & (values <= high)
        classes[within] = number
        known |= within
    if not known.all():
        unknown = np.unique(values[~known])[:5].tolist()
        rule = f"label values {unknown} are not among the 'label_values' of the data set"
        raise InputError(source, rule, "Is it a file of this set, as it was downloaded?")
    return classes
