"""ISIC 2018, task 1 (https://challenge.isic-archive.com): photographs of skin lesions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medsegdiff.data.public.folders import paired, unwrapped

PARTS = ("Validation", "Training", "Test")


def cases(root: Path) -> dict[str, Any]:
    """Entries of all parts found. Validation is fold 0, training fold 1; the test is kept."""
    found = {}
    for part in PARTS:
        images = unwrapped(root / f"ISIC2018_Task1-2_{part}_Input")
        labels = unwrapped(root / f"ISIC2018_Task1_{part}_GroundTruth")
        found[part] = paired(images, labels, ".jpg", "_segmentation.png")
    entries = [
        {"image": str(image), "label": str(label)}
        for part in found.values()
        for image, label in part.values()
    ]
    folds = [list(found["Validation"]), list(found["Training"])]
    listing: dict[str, Any] = {"training": entries, "test_patients": list(found["Test"])}
    return listing | ({"folds": folds} if all(folds) else {})
