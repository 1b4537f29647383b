"""Images and labels in one folder, told apart by their names: ``x.png`` and ``x_mask.png``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medsegdiff.data.layouts.image_and_label_folders import named_values
from medsegdiff.data.layouts.inferred_content import inferred_images, missing_labels
from medsegdiff.data.layouts.name_pairs import direct_files, is_label, pair, plain


def recognises(folder: Path, described: dict[str, Any]) -> bool:
    """Whether there is a file that is called as a label, and one that could be its image."""
    if "training" in described or not folder.is_dir():
        return False
    images, labels = _divided(folder)
    return bool({plain(name) for name in images} & {plain(name) for name in labels})


def describe(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The description of the folder; what it says itself counts.

    Raises:
        InputError: A label has no image, or files cannot be read.
    """
    images, labels = _divided(folder)
    found = pair(images, labels, folder)
    training: list[dict[str, Any]] = [
        {"case": name, "image": [path.name]} for name, path in images.items()
    ]
    for entry in training:
        if entry["case"] in found:
            entry["label"] = found[entry["case"]].name
    inferred = inferred_images([[path] for path in images.values()])
    names = named_values(folder / "labels.json")
    inferred |= missing_labels(described, list(found.values()), names)
    return inferred | described | {"training": training}


def _divided(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images, and labels, by name."""
    files = direct_files(folder)
    labels = {name: path for name, path in files.items() if is_label(name)}
    return {name: path for name, path in files.items() if name not in labels}, labels
