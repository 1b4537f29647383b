"""MONAI's datalists: ``training`` with ``fold`` keys (Auto3DSeg), ``validation``, ``testing``.

Each number of a fold is a fold. Cases under ``validation`` are a fold of their own; without
numbers it is the first, and the others are the second. Cases under ``testing`` are kept for the
test.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError
from medsegdiff.data.formats import without_ending
from medsegdiff.data.layouts.channel_files import split_channel
from medsegdiff.data.layouts.inferred_content import missing_labels, missing_of_images

_FURTHER = ("validation", "testing")


def recognises(folder: Path, described: dict[str, Any]) -> bool:
    """Whether cases have a fold, or there is a list of its own for validation or test."""
    return "folds" not in described and (
        any(isinstance(described.get(key), list) for key in _FURTHER)
        or any("fold" in entry for entry in _entries(described, "training"))
    )


def describe(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The description with folds of patients.

    Raises:
        InputError: Some cases have a fold and others none, or images or labels cannot be read.
    """
    training, validation, testing = (
        [_named(entry) for entry in _entries(described, key)] for key in ("training", *_FURTHER)
    )
    numbers = [entry.pop("fold", None) for entry in training]
    if None in numbers and any(number is not None for number in numbers):
        rule = "some cases under 'training' have a 'fold', and others none"
        raise InputError(folder, rule, "Give each a fold")
    by_number: dict[Any, list[str]] = {}
    for number, entry in zip(numbers, training, strict=True):
        by_number.setdefault(number, []).append(entry["patient"])
    folds = [by_number[number] for number in sorted(by_number, key=lambda n: (n is None, n))]
    held_out = [entry["patient"] for entry in validation]
    if validation:
        folds = [held_out, *folds] if None in by_number else [*folds, held_out]
    known = [entry for entry in testing if entry.get("label")]
    cases = [*training, *validation, *known]
    found: dict[str, Any] = {
        "training": cases,
        "test_patients": sorted({entry["patient"] for entry in known}),
        "test": [*_entries(described, "test"), *(e for e in testing if not e.get("label"))],
    }
    if validation or None not in by_number:
        found["folds"] = [list(dict.fromkeys(fold)) for fold in folds]
    images = [[folder / path for path in _paths(entry["image"])] for entry in cases]
    inferred = missing_of_images(described, images)
    files = [folder / path for e in cases for path in _paths(e.get("label") or [])]
    inferred |= missing_labels(described, files)
    kept = {key: value for key, value in described.items() if key not in _FURTHER}
    return inferred | kept | found


def images_there(folder: Path, described: dict[str, Any]) -> list[list[Path]]:
    """Paths of the images of each case under ``training``, without those that are missing."""
    named = [entry.get("image") for entry in _entries(described, "training")]
    files = [
        [folder / path for path in _paths(one)] for one in named if isinstance(one, str | list)
    ]
    return [each for each in files if each and all(map(os.path.exists, each))]


def _entries(described: dict[str, Any], key: str) -> list[dict[str, Any]]:
    listed = described.get(key)
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _named(entry: dict[str, Any]) -> dict[str, Any]:
    """A copy of an entry that names its patient: the case, if it says none."""
    paths = _paths(entry.get("image"))
    if not paths:
        raise InputError("the datalist", "a case has no 'image'", 'Write {"image": path, ...}')
    name = Path(paths[0]).name
    case = entry.get("case") or (split_channel(name)[0] if len(paths) > 1 else without_ending(name))
    return {**entry, "case": case, "patient": str(entry.get("patient", case))}


def _paths(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(path) for path in value or []]
