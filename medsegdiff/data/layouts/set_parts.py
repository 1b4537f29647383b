"""Parts of a data set: folders such as ``train``, ``val`` and ``test``.

Cases of the test are kept apart. All others are dealt to the folds, whatever part they lie in, and
one name in several of these parts is one patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOR_TRAINING = ("train", "training", "val", "valid", "validation")
FOR_TEST = ("test", "testing")


def is_part(name: str) -> bool:
    """Whether a folder of this name holds a part of a set.

    >>> is_part("Train"), is_part("patient1")
    (True, False)
    """
    return name.lower() in (*FOR_TRAINING, *FOR_TEST)


def part_of(entry: dict[str, Any]) -> str:
    """The part that a case lies in, in ``val/images/`` or ``images/val/``; empty if in none."""
    outer = Path(entry["image"][0]).parts[:-1][:2]
    return next((part.lower() for part in outer if is_part(part)), "")


def parted(cases: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The cases to learn from, and those of the test.

    Patients of the test are named after it where others are called alike.
    """
    training = [entry for entry in cases if part_of(entry) not in FOR_TEST]
    test = [entry for entry in cases if part_of(entry) in FOR_TEST]
    known = {entry["patient"] for entry in training}
    for entry in test:
        if entry["patient"] in known:
            entry["patient"] = f"{part_of(entry)}_{entry['patient']}"
    return training, test


def case_lists(
    training: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The cases as a description lists them: ``training``, ``test_patients`` and ``test``."""
    labelled = [entry for entry in test if "label" in entry]
    return {
        "training": [*training, *labelled],
        "test_patients": sorted({entry["patient"] for entry in labelled}),
        "test": [entry for entry in test if "label" not in entry],
    }
