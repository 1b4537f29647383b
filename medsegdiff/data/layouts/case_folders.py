"""One folder a case, with the same files in each: ``case_7/t1.nii.gz``, ``flair``, ``seg``.

What a file is in its case follows from its name, without the words that all files of the folder
begin or end with (``BraTS_7_t1`` and ``BraTS_7_seg`` are ``t1`` and ``seg``). Files that are called
as labels are those, by several readers where only the reader differs; the others are channels.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError
from medsegdiff.data.formats import format_of
from medsegdiff.data.layouts.image_and_label_folders import named_values
from medsegdiff.data.layouts.inferred_content import inferred_images, inferred_labels
from medsegdiff.data.layouts.name_pairs import direct_files, is_label, listed, words

FEWEST_PATIENTS = 5
"""Number of folders from which those that hold the cases' folders are patients, not groups."""

_READER = re.compile(r"(?:rater|reader|observer|expert|annotator)?\d*", re.IGNORECASE)
_REMEDY = "Give all cases the same files, or list them in a dataset.json"

Roles = dict[str, Path]
"""What a file is in its case -> its path."""


def recognises(folder: Path, described: dict[str, Any]) -> bool:
    """Whether two folders or more hold an image and a label each."""
    if "training" in described or not folder.is_dir():
        return False
    whole = 0
    for case in _case_folders(folder):
        roles = _roles(case)
        whole += any(map(is_label, roles)) and not all(map(is_label, roles))
        if whole == 2:
            return True
    return False


def describe(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The description of the folder; what it says itself counts.

    Raises:
        InputError: Cases have different files, labels are not those of several readers, or files
            cannot be read.
    """
    cases = {case: _roles(case) for case in _case_folders(folder)}
    labelled = {case: roles for case, roles in cases.items() if any(map(is_label, roles))}
    channels, notes = _shared(list(_others(cases)), cases, folder)
    labels = sorted({role for roles in labelled.values() for role in roles if is_label(role)})
    if len({_without_reader(role) for role in labels}) > 1:
        rule = f"cases have several labels: {listed(labels)}"
        raise InputError(folder, rule, "Keep one, or join them and list them in a dataset.json")
    first = {case.relative_to(folder).parts[0] for case in cases}
    grouped = len(first) < FEWEST_PATIENTS and len(first) < len(cases)
    training = []
    for case, roles in cases.items():
        below = case.relative_to(folder)
        entry: dict[str, Any] = {
            "case": "_".join(below.parts),
            "image": [(below / roles[role].name).as_posix() for role in channels],
            "patient": "_".join(below.parts) if grouped else below.parts[0],
        }
        drawn = [(below / roles[role].name).as_posix() for role in labels if role in roles]
        training.append(entry | ({"label": drawn if len(drawn) > 1 else drawn[0]} if drawn else {}))
    inferred = inferred_images([[folder / path for path in one["image"]] for one in training])
    if len(channels) > 1:
        inferred["channel_names"] = {str(i): name for i, name in enumerate(channels)}
    if "labels" not in described:
        files = [roles[role] for roles in labelled.values() for role in labels if role in roles]
        found = inferred_labels(files, named_values(folder / "labels.json"))
        notes += found.pop("notes")
        inferred |= found
    return {**inferred, "notes": notes, **described, "training": training}


def channel_files(case: Path, channels: Sequence[str]) -> tuple[Path, ...]:
    """The files of the channels in a folder of one case; empty where one is missing.

    Args:
        case: Folder of the case.
        channels: Names of the channels, in the order of the network's.
    """
    roles = {role.lower(): path for role, path in _roles(case).items()}
    wanted = [name.lower() for name in channels]
    return tuple(roles[name] for name in wanted) if set(wanted) <= set(roles) else ()


def _case_folders(folder: Path) -> list[Path]:
    """Folders that hold image files, up to two levels below."""
    visible = [path for path in (*folder.glob("*/"), *folder.glob("*/*/")) if path.is_dir()]
    shown = (p for p in visible if not any(part[0] == "." for part in p.relative_to(folder).parts))
    return [path for path in sorted(shown) if any(format_of(file) for file in path.iterdir())]


def _roles(case: Path) -> Roles:
    """What each image file of a case is."""
    files = direct_files(case)
    split = {name: words(name) for name in files}
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


def _others(cases: dict[Path, Roles]) -> Counter[str]:
    """Number of cases that have each channel."""
    return Counter(role for roles in cases.values() for role in roles if not is_label(role))


def _shared(
    names: list[str], cases: dict[Path, Roles], folder: Path
) -> tuple[list[str], list[str]]:
    """Channels that all cases have, and a note on files that few have.

    Raises:
        InputError: Most cases have a channel that others lack, or they have none in common.
    """
    number = _others(cases)
    few = sorted(name for name in names if number[name] <= len(cases) // 2)
    channels = sorted(set(names) - set(few))
    for name in channels:
        without = [case.relative_to(folder).as_posix() for case in cases if name not in cases[case]]
        if without:
            rule = f"no file {name or 'of an image'!r} in {listed(without)}"
            raise InputError(folder, rule, _REMEDY)
    if not channels:
        raise InputError(folder, f"cases have no image in common: {listed(few)}", _REMEDY)
    return channels, [f"files that few cases have are left out: {listed(few)}"] if few else []


def _without_reader(role: str) -> str:
    return "_".join(word for word in words(role) if not _READER.fullmatch(word))
