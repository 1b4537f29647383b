"""One folder a case, with the same files in each: ``case_7/t1.nii.gz``, ``flair``, ``seg``.

What a file is in its case follows from its name, without the words that all files of the folder
begin or end with (``BraTS_7_t1`` and ``BraTS_7_seg`` are ``t1`` and ``seg``). Files that are called
as labels are those, by several readers where only the reader differs; the others are channels, if
most cases have them. Several images of a folder with a label each (``x_1``, ``x_1_mask``, ``x_2``,
``x_2_mask``) are cases of one patient.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError
from medsegdiff.data.layouts.image_and_label_folders import named_values
from medsegdiff.data.layouts.inferred_content import inferred_images, missing_labels
from medsegdiff.data.layouts.name_pairs import direct_files, is_label, listed, pair, plain, words
from medsegdiff.data.layouts.set_parts import case_lists, is_part, parted

FEWEST_PATIENTS = 5
"""Number of outer folders of cases from which each is a patient; fewer are groups of patients."""

_READER = re.compile(r"(?:rater|reader|observer|expert|annotator)?\d*", re.IGNORECASE)
_REMEDY = "Give all cases the same files, or list them in a dataset.json"

Roles = dict[str, Path]
"""What a file is in its case, in small letters -> its path."""


def recognises(folder: Path, described: dict[str, Any]) -> bool:
    """Whether two folders or more hold an image and a label each."""
    if "training" in described or not folder.is_dir():
        return False
    return sum(_is_labelled(_roles(case)) for case in _case_folders(folder)) > 1


def describe(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The description of the folder; what it says itself counts.

    Raises:
        InputError: Cases have different files, labels are not those of several readers, or files
            cannot be read.
    """
    cases = _case_folders(folder)
    if any(_has_pairs(case) for case in cases):
        channels, entries = [""], _pairs(cases, folder)
        notes = ["several images of a folder with a label each are cases of one patient"]
    else:
        channels, notes, entries = _one_each(cases, folder)
    training, test = parted(entries)
    inferred = inferred_images([[folder / path for path in one["image"]] for one in entries])
    if len(channels) > 1:
        inferred["channel_names"] = {str(i): name for i, name in enumerate(channels)}
    files = [folder / path for one in entries for path in one.get("label", ())]
    found = missing_labels(described, files, named_values(folder / "labels.json"))
    notes += found.pop("notes", [])
    return {**inferred, **found, "notes": notes, **described, **case_lists(training, test)}


def channel_files(case: Path, channels: Sequence[str]) -> tuple[Path, ...]:
    """The files of the channels in a folder of one case; empty where one is missing or not clear.

    A file is a channel's if its name has the channel's words, one after the other. Channels of more
    words come first: ``t1_gd`` is not ``t1``.

    Args:
        case: Folder of the case.
        channels: Names of the channels, in the order of the network's.
    """
    left = {tuple(words(name.lower())): path for name, path in direct_files(case).items()}
    left = {name: path for name, path in left.items() if not any(map(is_label, name))} or left
    found: dict[int, Path] = {}
    wanted = [tuple(words(name.lower())) for name in channels]
    for index in sorted(range(len(wanted)), key=lambda i: -len(wanted[i])):
        fitting = [name for name in left if _within(wanted[index], name)]
        if len(fitting) != 1:
            return ()
        found[index] = left.pop(fitting[0])
    return tuple(found[index] for index in range(len(wanted)))


def labels_among(folder: Path) -> set[Path]:
    """The files of a folder that are called as labels, if others are not."""
    roles = _roles(folder)
    return {path for role, path in roles.items() if is_label(role) and _is_labelled(roles)}


def _within(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))


def _case_folders(folder: Path) -> list[Path]:
    """Folders that hold image files, up to two levels below.

    Not those in a folder that is a case, such as one of previews, nor those above cases.
    """
    inner = [path for path in (*folder.glob("*/"), *folder.glob("*/*/")) if path.is_dir()]
    shown = [p for p in inner if not any(part[0] == "." for part in p.relative_to(folder).parts)]
    held = [path for path in sorted(shown) if direct_files(path)]
    whole = {path for path in held if _is_labelled(_roles(path))}
    above = {path.parent for path in whole} - whole
    return [path for path in held if path.parent not in whole and path not in above]


def _roles(case: Path) -> Roles:
    """What each image file of a case is."""
    files = direct_files(case)
    split = {name: words(name.lower()) for name in files}
    if len(files) < 2:
        return {"_".join(split[name]): path for name, path in files.items()}
    shortest = min(map(len, split.values()))

    def common(backwards: bool) -> int:
        step = -1 if backwards else 1
        columns = zip(*(one[::step][:shortest] for one in split.values()), strict=True)
        same = [len(set(column)) == 1 for column in columns]
        return same.index(False) if False in same else shortest

    begin = common(False)
    end = min(common(True), shortest - begin)
    return {"_".join(one[begin : len(one) - end]): files[name] for name, one in split.items()}


def _is_labelled(roles: Roles) -> bool:
    return any(map(is_label, roles)) and not all(map(is_label, roles))


def _has_pairs(case: Path) -> bool:
    """Whether a folder has several images with a label each."""
    files = direct_files(case)
    images = {plain(name) for name in files if not is_label(name)}
    return len({plain(name) for name in files if is_label(name)} & images) > 1


def _pairs(cases: Sequence[Path], folder: Path) -> list[dict[str, Any]]:
    """Entries of the images of each folder, with their labels.

    Raises:
        InputError: A label has no image.
    """
    entries = []
    for case in cases:
        files = direct_files(case)
        labels = {name: path for name, path in files.items() if is_label(name)}
        images = {name: path for name, path in files.items() if name not in labels}
        found = pair(images, labels, case)
        for name, path in images.items():
            drawn = [found[name]] if name in found else []
            entries.append(_entry(folder, case, f"{case.name}_{name}", [path], drawn))
    return _with_patients(entries)


def _one_each(
    cases: Sequence[Path], folder: Path
) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """The channels, notes, and an entry for each folder.

    Raises:
        InputError: Cases lack a channel, or have several labels.
    """
    roles = {case: _roles(case) for case in cases}
    labelled = [of_case for of_case in roles.values() if _is_labelled(of_case)]
    number = Counter(role for one in labelled for role in one if not is_label(role))
    channels = sorted(role for role, n in number.items() if n > len(labelled) // 2)
    if not channels:
        rule = f"cases have no image in common: {listed(sorted(number))}"
        raise InputError(folder, rule, _REMEDY)
    entries, others, readers = [], Counter[str](), 1
    for case, of_case in roles.items():
        images = [of_case[role] for role in channels if role in of_case]
        if len(images) < len(channels):
            images = list(channel_files(case, channels))
        if not images:
            missing = [name for name in channels if name not in of_case]
            rule = f"{case.relative_to(folder).as_posix()} has no file {listed(missing)!r}"
            raise InputError(folder, rule, _REMEDY)
        drawn = {role: path for role, path in of_case.items() if is_label(role)}
        if len({_without_reader(role) for role in drawn}) > 1:
            rule = f"{case.relative_to(folder).as_posix()} has several labels: {listed([*drawn])}"
            raise InputError(folder, rule, "Keep one, or join them and list them in a dataset.json")
        readers = max(readers, len(drawn))
        used = {*images, *drawn.values()}
        others.update(role for role, path in of_case.items() if path not in used)
        labels = [drawn[role] for role in sorted(drawn)]
        entries.append(_entry(folder, case, case.name, images, labels))
    notes = [f"files that few cases have are left out: {listed(sorted(others))}"] if others else []
    if readers > 1:
        notes.append(f"labels that differ in a number or reader are taken for {readers} readers")
    return channels, notes, _with_patients(entries)


def _entry(
    folder: Path, case: Path, name: str, images: Sequence[Path], labels: Sequence[Path]
) -> dict[str, Any]:
    below = case.relative_to(folder).parts
    image, label = ([one.relative_to(folder).as_posix() for one in of] for of in (images, labels))
    entry: dict[str, Any] = {"case": "_".join((*below[:-1], name)), "image": image}
    return entry | ({"label": label} if label else {})


def _with_patients(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries with patients: their outer folders where these are many, or else their own."""
    places = []
    for entry in entries:
        parts = list(Path(entry["image"][0]).parent.parts)
        if is_part(parts[0]) and len(parts) > 1:
            parts.pop(0)
        places.append(parts)
    outer = {parts[0] for parts in places}
    grouped = len(outer) < FEWEST_PATIENTS
    for entry, parts in zip(entries, places, strict=True):
        entry["patient"] = "_".join(parts) if grouped else parts[0]
    return entries


def _without_reader(role: str) -> str:
    return "_".join(word for word in words(role) if not _READER.fullmatch(word))
