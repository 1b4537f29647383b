"""What the values of a label file mean, where they are not the numbers of the classes.

A mask may be stored as 0 and 255, BraTS calls a tumour 4, and one saved as JPEG has values in
between. The key ``label_values`` of a description names them: ``{"0-127": 0, "128-255": 1}``.
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
"""Lowest and highest value in the file, both included, and the class they stand for."""


def parse_label_values(value: Any, labels: Collection[int], file: Path) -> LabelValues:
    """Read the key ``label_values`` of a description.

    Raises:
        InputError: not of the form value or range -> a class of ``labels``, or ranges overlap.
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
    """The class of every value of a label file, of the same shape; without ranges, the values.

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
