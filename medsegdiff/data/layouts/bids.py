"""BIDS (bids-specification.readthedocs.io): images of subjects, labels in ``derivatives/``.

``sub-01/[ses-1/]anat/sub-01_T1w.nii.gz`` is an image, and
``derivatives/<pipeline>/sub-01/.../sub-01_[label-X_](dseg|mask).nii.gz`` a label. What lies in
``derivatives/`` is never an image.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError
from medsegdiff.data.formats import without_ending
from medsegdiff.data.layouts.inferred_content import inferred_images, inferred_labels

LABEL_SUFFIXES = ("dseg", "mask")
_FIRST = ("T1w", "T2w", "FLAIR")
"""Contrasts that are taken before others."""
_OF_LABEL = ("label", "desc", "space", "res", "den", "hemi", "atlas", "seg")
"""Entities that a label may have beyond those of its image."""


def recognises(folder: Path, described: dict[str, Any]) -> bool:
    """Whether there are images of subjects, and no list of cases."""
    return "training" not in described and bool(image_files(folder))


def image_files(folder: Path) -> list[Path]:
    """Paths of the anatomical images, links to missing files included."""
    if not folder.is_dir():
        return []
    places = ("sub-*/anat", "sub-*/ses-*/anat")
    found = [path for place in places for path in folder.glob(f"{place}/sub-*.nii*")]
    return sorted(path for path in found if _suffix(path) not in LABEL_SUFFIXES)


def chosen_images(folder: Path) -> tuple[list[Path], list[str]]:
    """Paths of the images of one contrast, and sentences on what is left out."""
    images = image_files(folder)
    contrast, notes = _choose_contrast(images)
    notes += _not_anatomical(folder)
    return [path for path in images if _suffix(path) == contrast], notes


def _not_anatomical(folder: Path) -> list[str]:
    """A sentence on images of other kinds, such as those of ``func/`` and ``dwi/``."""
    places = ("sub-*/*/sub-*.nii*", "sub-*/ses-*/*/sub-*.nii*")
    kinds = Counter(path.parent.name for place in places for path in folder.glob(place))
    del kinds["anat"]
    named = ", ".join(f"{count} of {kind}/" for kind, count in sorted(kinds.items()))
    return [f"only images of anat/ are taken, and {named} left out"] if named else []


def describe(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """The description: one contrast, one kind of label, and the subjects as patients.

    Raises:
        InputError: There is no label, or files cannot be read.
    """
    images, notes = chosen_images(folder)
    labels, contrast = _label_files(folder), _suffix(images[0])
    kind = _choose_kind(images, labels)
    if kind is None:
        rule = f"derivatives/ holds no *_dseg.nii.gz or *_mask.nii.gz of a {contrast} image"
        raise InputError(folder, rule, "Add the labels, or name them in a dataset.json")
    others = sorted({"/".join(filter(None, _kind(path))) for path in labels if _kind(path) != kind})
    if others:
        notes.append(f"other labels are left out: {', '.join(others)}")
    entries, used = [], []
    for image in images:
        label = _label_of(image, [path for path in labels if _kind(path) == kind])
        entry = {
            "case": without_ending(image.name),
            "image": [image.relative_to(folder).as_posix()],
            "patient": _entities(image)["sub"],
        }
        if label:
            entry["label"] = label.relative_to(folder).as_posix()
            used.append(label)
        entries.append(entry)
    found: dict[str, Any] = {"training": entries, "name": folder.resolve().name}
    found |= inferred_images([[image] for image in images]) | {"channel_names": {"0": contrast}}
    inferred = inferred_labels(used, _names(used))
    if kind[1] and len(inferred["labels"]) == 2:
        inferred["labels"]["1"] = kind[1]
    notes += inferred.pop("notes")
    return found | inferred | {"notes": notes} | described


def _label_files(folder: Path) -> list[Path]:
    found = folder.glob("derivatives/**/sub-*.nii*")
    return sorted(path for path in found if _suffix(path) in LABEL_SUFFIXES)


def _choose_contrast(images: Sequence[Path]) -> tuple[str, list[str]]:
    """The contrast that most subjects have, and what is said of the others."""
    counts = Counter(_suffix(path) for path in images)
    order = {name: i for i, name in enumerate(_FIRST)}
    ranked = sorted(counts, key=lambda name: (-counts[name], order.get(name, len(order)), name))
    notes = [f"{ranked[0]} is taken, and {', '.join(ranked[1:])} left out"] if ranked[1:] else []
    return ranked[0], notes


def _choose_kind(images: Sequence[Path], labels: Sequence[Path]) -> tuple[str, str, str] | None:
    """Pipeline, ``label-`` and suffix that label the most images; segmentations before masks."""
    kinds = sorted({_kind(path) for path in labels})

    def labelled(kind: tuple[str, str, str]) -> int:
        own = [path for path in labels if _kind(path) == kind]
        return sum(_label_of(image, own) is not None for image in images)

    ranked = sorted(kinds, key=lambda kind: (-labelled(kind), LABEL_SUFFIXES.index(kind[2]), kind))
    return ranked[0] if ranked and labelled(ranked[0]) else None


def _label_of(image: Path, labels: Sequence[Path]) -> Path | None:
    """The label whose entities, but for those of labels alone, are all in the image's."""
    wanted = _entities(image)
    for label in labels:
        own = {key: v for key, v in _entities(label).items() if key not in _OF_LABEL}
        same_session = own.get("ses") == wanted.get("ses") and own.get("run") in (
            None,
            wanted.get("run"),
        )
        if same_session and all(wanted.get(key) == value for key, value in own.items()):
            return label
    return None


def _kind(label: Path) -> tuple[str, str, str]:
    parts = label.parts
    pipeline = parts[len(parts) - 1 - parts[::-1].index("derivatives") + 1]
    pipeline = "" if pipeline.startswith("sub-") else pipeline
    return pipeline, _entities(label).get("label", ""), _suffix(label)


def _names(labels: Sequence[Path]) -> dict[int, str]:
    """Names of values, from a ``*dseg.tsv`` beside or above a label; none without one."""
    for place in labels[0].parents:
        for table in sorted(p for p in place.glob("*dseg.tsv") if p.name[0] != "."):
            with table.open(encoding="utf-8", newline="") as lines:
                rows = list(csv.DictReader(lines, delimiter="\t"))
            if rows and {"index", "name"} <= set(rows[0]):
                return {int(row["index"]): row["name"] for row in rows}
        if place.name == "derivatives":
            break
    return {}


def _suffix(path: Path) -> str:
    return without_ending(path.name).rpartition("_")[2]


def _entities(path: Path) -> dict[str, str]:
    """Keys and values of a file's name.

    >>> _entities(Path("sub-01_ses-2_T1w.nii.gz"))
    {'sub': '01', 'ses': '2'}
    """
    parts = without_ending(path.name).split("_")
    return {key: value for key, dash, value in (part.partition("-") for part in parts) if dash}
