"""A folder of images and a folder of labels, paired by name.

``images/`` and ``labels/``, or ``imagesTr/`` and ``labelsTr/``, ``image/`` and ``masks/``; those of
the test, ``imagesTs/`` and ``labelsTs/``, are kept apart. Both may lie in ``train/``, ``val/`` and
``test/``, or the other way round (``images/train/``): those of the test are kept apart, all others
are dealt to the folds. Names of the classes may stand in
``labels.json`` (as ``labels`` of a ``dataset.json``), and anything else in a ``dataset.json``
without a list of cases.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError
from medsegdiff.data.layouts.channel_files import joined_channels
from medsegdiff.data.layouts.inferred_content import inferred_images, missing_labels
from medsegdiff.data.layouts.name_pairs import RULE, named_files, pair, plain
from medsegdiff.data.layouts.set_parts import case_lists, is_part, part_of, parted

IMAGES = ("imagestr", "images", "image", "imgs", "img")
LABELS = ("labelstr", "labels", "label", "masks", "mask", "segmentations", "annotations")
TEST_IMAGES, TEST_LABELS = ("imagests",), ("labelsts",)


def recognises(folder: Path, described: dict[str, Any]) -> bool:
    """Whether there are both folders, of all or of a part of it, and no list of cases."""
    return "training" not in described and any(map(label_folder, (folder, *_splits(folder))))


def describe(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The description of the folder; what it says itself counts.

    Raises:
        InputError: Files do not belong together by their names, or cannot be read.
    """
    cases = paired_cases(folder, folder, IMAGES, LABELS)
    for split in _splits(folder):
        cases += paired_cases(split, folder, IMAGES, LABELS)
    _tell_apart(cases)
    training, test = parted(cases)
    test = paired_cases(folder, folder, TEST_IMAGES, TEST_LABELS) + test
    labelled = [entry for entry in training if "label" in entry]
    if not labelled:
        raise InputError(folder, "no image has a label", f"Rename the files: {RULE}")
    found = case_lists(training, test)
    found |= inferred_images([[folder / path for path in entry["image"]] for entry in training])
    files = [folder / entry["label"] for entry in labelled]
    found |= missing_labels(described, files, named_values(folder / "labels.json"))
    return found | described


def _splits(folder: Path) -> list[Path]:
    """Folders such as ``train`` that hold a part of the set."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    return [path for path in inner if is_part(path.name) and subfolder(path, IMAGES)]


def _tell_apart(entries: Sequence[dict[str, Any]]) -> None:
    """Name cases after their part of the set, too, where names repeat; their patients stay one."""
    repeated = Counter(entry["case"] for entry in entries)
    for entry in entries:
        if repeated[entry["case"]] > 1:
            entry["case"] = f"{part_of(entry)}_{entry['case']}"


def paired_cases(
    folder: Path, root: Path, images: tuple[str, ...], labels: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Entries of the cases in two folders of these names; none if there is none.

    Args:
        folder: Folder that holds them.
        root: Folder of the data set, from which paths start.
        images: Names of the folder of images.
        labels: Names of the folder of labels.

    Raises:
        InputError: A label has no image.
    """
    places = subfolder(folder, images), subfolder(folder, labels)
    if places[0] is None:
        return []
    files, of_labels = named_files(places[0]), named_files(places[1]) if places[1] else {}
    cases = {name: [path] for name, path in files.items()}
    if not {plain(name) for name in of_labels} & {
        plain(name) for name in files
    }:  # else the numbers are the cases
        cases = joined_channels(cases)
    found = pair(cases, of_labels, folder)
    entries = []
    for name, paths in cases.items():
        below = list(paths[0].relative_to(places[0]).parent.parts)
        if below and is_part(below[0]):
            below.pop(0)  # a part of the set, not a patient
        entry: dict[str, Any] = {
            "case": name,
            "image": [path.relative_to(root).as_posix() for path in paths],
            "patient": below[0] if below else name,
        }
        if name in found:
            entry["label"] = found[name].relative_to(root).as_posix()
        entries.append(entry)
    return entries


def label_folder(folder: Path) -> Path | None:
    """The folder of labels beside one of images, or None."""
    return subfolder(folder, LABELS) if subfolder(folder, IMAGES) else None


def subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first subfolder of one of these names, in any letter case."""
    if not folder.is_dir():
        return None
    there = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    return next((there[name] for name in names if name in there), None)


def named_values(file: Path) -> dict[int, str]:
    """Names of values in a ``labels.json``; none if there is no such file.

    Raises:
        InputError: The file does not name whole numbers.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        turned = all(type(value) is int for value in content.values())
        pairs = ((value, name) if turned else (name, value) for name, value in content.items())
        return {int(number): str(name) for number, name in pairs}
    except (OSError, ValueError, AttributeError) as error:
        rule = f"does not name the values of the labels ({error})"
        raise InputError(file, rule, 'Write {"0": "background", "1": "name"}') from None
