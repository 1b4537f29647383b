"""REFUGE2 (https://refuge.grand-challenge.org): disc and cup in photographs of the retina."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PARTS = {
    "Train/REFUGE1-train": ("refuge1-train", "training"),
    "Train/REFUGE1-val": ("refuge1-val", "training"),
    "Train/REFUGE1-test": ("refuge1-test", "training"),
    "Validation": ("refuge2-val", "validation"),
    "Test": ("refuge2-test", "test"),
}
"""Prefix of the cases' names, which repeat between parts, and use of each part, by folder."""


def cases(root: Path) -> dict[str, Any]:
    """Entries of all parts found. REFUGE2's validation is fold 0, all of REFUGE (1) is fold 1."""
    entries: list[dict[str, str]] = []
    uses: dict[str, list[str]] = {"validation": [], "training": [], "test": []}
    for part, (prefix, use) in PARTS.items():
        labels = {file.stem: file for file in _masks(root / part)}
        images = {file.stem: file for file in _photographs(root / part)}
        for stem in sorted(images.keys() | labels.keys()):
            name = f"{prefix}_{stem}"
            image = images.get(stem, root / part / f"{stem}.jpg")
            label = labels.get(stem, root / part / "Disc_Cup_Masks" / f"{stem}.bmp")
            entries.append({"case": name, "image": str(image), "label": str(label)})
            uses[use].append(name)
    folds = [uses["validation"], uses["training"]]
    listing: dict[str, Any] = {"training": entries, "test_patients": uses["test"]}
    return listing | ({"folds": folds} if all(folds) else {})


def _photographs(part: Path) -> list[Path]:
    """Photographs, without the pictures of the annotations, which have the same names."""
    files = sorted(part.rglob("*.jpg"))
    return [f for f in files if not any(name.startswith("Disc") for name in _folders(f, part))]


def _masks(part: Path) -> list[Path]:
    """Files in folders such as ``Disc_Cup_Masks``, ``Disc_Masks`` or ``Disc_Mask``."""
    files = sorted([*part.rglob("*.bmp"), *part.rglob("*.png")])
    return [
        f for f in files if any(n.startswith("Disc") and "Mask" in n for n in _folders(f, part))
    ]


def _folders(file: Path, part: Path) -> tuple[str, ...]:
    return file.relative_to(part).parts[:-1]
