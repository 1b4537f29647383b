"""nnU-Net's raw data, both versions (github.com/MIC-DKFZ/nnUNet, dataset_format.md).

``imagesTr/x_0000.nii.gz`` is the first channel of case ``x``, ``labelsTr/x.nii.gz`` its label.
Version 1 lists the cases in ``training``, as ``imagesTr/x.nii.gz``; version 2 does not, and has
``channel_names`` and ``file_ending``.
"""

from __future__ import annotations

import json
import os
from glob import escape
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError
from medsegdiff.data.formats import without_ending
from medsegdiff.data.layouts.channel_files import by_case, require_channels
from medsegdiff.data.layouts.inferred_content import inferred_images


def recognises(folder: Path, described: dict[str, Any]) -> bool:
    """Whether it is version 2, or version 1, whose listed names lack the channels' numbers."""
    if "training" not in described:
        return "labels" in described and bool({"file_ending", "numTraining"} & set(described))
    listed = _listed_images(described)
    missing = bool(listed) and not os.path.exists(folder / listed[0])
    return missing and bool(_channels(folder, listed[0]))


def describe(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The description with all files of each case, and nnU-Net's own folds if they are there.

    Raises:
        InputError: Files of a channel or an image of a label are missing, or labels are regions.
    """
    _refuse_regions(folder, described)
    names = described.get("channel_names", described.get("modality"))
    count = len(names) if isinstance(names, dict) else 0
    if "training" in described:
        pairs = {_stem(entry["image"]): entry.get("label") for entry in described["training"]}
        images = {name: _channels(folder, f"imagesTr/{name}") for name in pairs}
    else:
        images, pairs = _found(folder, described)
    training = [_entry(folder, name, images[name], pairs[name], count) for name in pairs]
    test = [
        _entry(folder, name, files, _test_label(folder, name), count)
        for name, files in by_case(_images(folder, "imagesTs", described)).items()
    ]
    found: dict[str, Any] = {
        "training": training + [entry for entry in test if "label" in entry],
        "test_patients": [entry["case"] for entry in test if "label" in entry],
        "test": [entry for entry in test if "label" not in entry],
    }
    if not training:
        raise InputError(folder, "labelsTr has no label of an image in imagesTr", "Add the files")
    inferred = inferred_images([[folder / path for path in one["image"]] for one in training])
    inferred = {"tensorImageSize": inferred["tensorImageSize"]} if count else inferred
    return inferred | described | found | _folds(folder)


def _refuse_regions(folder: Path, described: dict[str, Any]) -> None:
    labels = described.get("labels")
    values = labels.values() if isinstance(labels, dict) else ()
    if "regions_class_order" in described or any(isinstance(value, list) for value in values):
        rule = "has regions as labels (classes that hold each other), which are not supported"
        remedy = "Name each value of the label files as a class of its own in 'labels'"
        raise InputError(folder / "dataset.json", rule, remedy)


def _found(
    folder: Path, described: dict[str, Any]
) -> tuple[dict[str, list[Path]], dict[str, str | None]]:
    """Files of the channels, and the label, of each case."""
    listed = described.get("dataset")
    if isinstance(listed, dict) and listed:  # the files may lie anywhere
        images = {name: [folder / p for p in entry["images"]] for name, entry in listed.items()}
        return images, {name: entry.get("label") for name, entry in listed.items()}
    images = by_case(_images(folder, "imagesTr", described))
    labels = {
        without_ending(file.name): file.relative_to(folder).as_posix()
        for file in _images(folder, "labelsTr", described)
    }
    alone = sorted(set(labels) - set(images))
    if alone:
        rule = f"labels in labelsTr without an image in imagesTr: {', '.join(alone[:5])}"
        raise InputError(folder, rule, "An image of x.nii.gz is called x_0000.nii.gz")
    return images, {name: labels.get(name) for name in images}


def _images(folder: Path, part: str, described: dict[str, Any]) -> list[Path]:
    ending = str(described.get("file_ending", ".nii.gz"))
    place = folder / part
    return sorted(f for f in place.glob(f"*{ending}") if f.name[0] != ".") if place.is_dir() else []


def _entry(
    folder: Path, name: str, files: list[Path], label: str | None, count: int
) -> dict[str, Any]:
    if count and not (len(files) == count == 1):  # a single file may be called x alone
        require_channels(name, files, count)
    shown = [f.relative_to(folder) if f.is_relative_to(folder) else f for f in files]
    entry: dict[str, Any] = {"case": name, "image": [file.as_posix() for file in shown]}
    return entry | ({"label": label} if label else {})


def _test_label(folder: Path, name: str) -> str | None:
    found = sorted((folder / "labelsTs").glob(f"{name}.*"))
    return found[0].relative_to(folder).as_posix() if found else None


def _channels(folder: Path, image: str) -> list[Path]:
    place = (folder / image).parent
    if not os.path.isdir(place):  # which pathlib asks of no name that is too long
        return []
    return sorted(place.glob(f"{escape(_stem(image))}_[0-9][0-9][0-9][0-9].*"))


def _stem(image: Any) -> str:
    return without_ending(Path(str(image)).name)


def _listed_images(described: dict[str, Any]) -> list[str]:
    entries = described["training"] if isinstance(described["training"], list) else []
    images = [entry.get("image") for entry in entries if isinstance(entry, dict)]
    return [str(image) for image in images] if all(isinstance(i, str) for i in images) else []


def _folds(folder: Path) -> dict[str, Any]:
    """The held-out cases of each fold in ``splits_final.json``, which nnU-Net writes."""
    try:
        splits = json.loads((folder / "splits_final.json").read_text(encoding="utf-8"))
        return {"folds": [list(split["val"]) for split in splits]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
