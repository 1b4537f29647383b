"""TN3K: nodules in ultrasound images of the thyroid, with five folds of the authors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError
from medsegdiff.data.public.folders import paired


def cases(root: Path) -> dict[str, Any]:
    """Entries for training and validation, in the authors' folds, and those kept for the test.

    Raises:
        InputError: a file of the folds is damaged.
    """
    entries: list[dict[str, str]] = []
    named: dict[str, list[str]] = {}
    for part in ("trainval", "test"):
        found = paired(root / f"{part}-image", root / f"{part}-mask", ".jpg", ".jpg")
        named[part] = [f"{part}_{number}" for number in found]  # both parts count from 0000
        for name, (image, label) in zip(named[part], found.values(), strict=True):
            entries.append({"case": name, "image": str(image), "label": str(label)})
    folds = _folds(root, named["trainval"])
    listing: dict[str, Any] = {"training": entries, "test_patients": named["test"]}
    return listing | ({"folds": folds} if folds else {})


def _folds(root: Path, names: list[str]) -> list[list[str]]:
    """Validation cases of ``tn3k-trainval-fold<k>.json``, which lists positions; none without it.

    Raises:
        InputError: a file is damaged.
    """
    folds = []
    for file in sorted(root.glob("tn3k-trainval-fold*.json")):
        try:
            chosen = json.loads(file.read_text(encoding="utf-8"))["val"]
            folds.append([names[int(position)] for position in chosen])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            rule = f"does not list cases of this set ({type(error).__name__}: {error})"
            raise InputError(file, rule, "Download it again, or remove all of them") from None
    if sorted(name for fold in folds for name in fold) == names:
        return folds
    if folds:  # some are missing: the first alone divides the cases
        return [folds[0], sorted(set(names) - set(folds[0]))]
    return []
