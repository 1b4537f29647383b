"""Probability maps in image files: one for each case and class, or one of all classes.

``x_liver.nii.gz`` or ``x/liver.nii.gz`` is the probability of a class of case ``x``; words such as
``prob`` between or before the two do not matter. ``x.nii.gz`` with a fourth axis has all classes,
along its last axis or its first, with or without the background.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.images import read_image
from medsegdiff.data.layouts.name_pairs import direct_files
from medsegdiff.data.manifest import class_slug
from medsegdiff.data.transforms import check_grid
from medsegdiff.other_models.predicted import (
    Known,
    Maps,
    Member,
    OtherModel,
    PredictedCase,
    Predictions,
)
from medsegdiff.other_models.probability_maps import (
    TOLERANCE,
    summing_to_one,
    with_background,
)

PROGRAM = "unknown program"
WORDS = frozenset(
    {
        *("prob", "probs", "probability", "probabilities", "softmax"),
        *("mean", "pred", "prediction", "map"),
    }
)
"""Words in names of files that say neither case nor class."""
_SIGNS = re.compile(r"[_\-. ]+")
_LAST_WORD = re.compile(r"[_\-. ]+([^_\-. ]+)$")


def recognises(folder: Path) -> bool:
    """Whether it has folders of one file a class, or files that are no masks of one volume."""
    return bool(_nested(folder)) or bool(direct_files(folder))


def find(folder: Path, known: Known) -> Predictions:
    """The predictions in a folder.

    Args:
        folder: Folder of the maps.
        known: Facts that are known of them: the classes are needed to read the names of files in
            one folder.

    Raises:
        InputError: no case has all its maps, or files belong to no class.
    """
    nested, flat = _nested(folder), direct_files(folder)
    if nested:
        by_case = {case: _by_class(files, known, case) for case, files in nested.items()}
    elif known.classes and any(class_of(name, known.classes) for name in flat):
        by_case = _split(flat, known.classes, folder)
    else:
        return _stacked(folder, flat, known)
    classes = known.classes or _common_classes(by_case, folder)
    cases: dict[str, PredictedCase] = {}
    failures: dict[str, InputError] = {}
    for case, files in by_case.items():
        missing = [slug for slug in classes if slug not in files]
        if missing:
            rule = f"has no map of {', '.join(missing)}, but of {', '.join(files) or 'no class'}"
            failures[case] = InputError(
                folder / case, rule, "Add it, or name it as the data set does"
            )
            continue
        paths = tuple(files[slug] for slug in classes)
        cases[case] = PredictedCase((Member(paths, partial(_read_classes, paths)),))
    model = model_of_files(known.model, classes)
    return Predictions("one map for each case and class", model, cases, failures, unnamed(known))


def model_of_files(name: str | None, classes: Sequence[str]) -> OtherModel:
    """A model of which there are files alone, named by the user."""
    identity = {"program": PROGRAM, "model": name, "classes": list(classes)}
    return OtherModel(PROGRAM, name or "unnamed model", identity, ("background", *classes))


def unnamed(known: Known) -> tuple[str, ...]:
    """The note that a model has no name, where it has none."""
    told = (
        "the files do not say which model made them, so that a calibration cannot tell it from "
        "others: name it with --model"
    )
    return () if known.model else (told,)


def _nested(folder: Path) -> dict[str, dict[str, Path]]:
    """Name of a folder of image files -> these by name; empty without such folders."""
    inner = (one for one in sorted(folder.iterdir()) if one.is_dir() and one.name[0] != ".")
    found = {one.name: direct_files(one) for one in inner}
    return {name: files for name, files in found.items() if files}


def _by_class(files: Mapping[str, Path], known: Known, case: str) -> dict[str, Path]:
    """Files of one case's folder by their class."""
    found: dict[str, Path] = {}
    for name, path in files.items():
        begins = name.startswith(case) and _SIGNS.match(name, len(case))  # not b of "background"
        rest = name[len(case) :] if begins else name
        slug = class_of(rest, known.classes) if known.classes else _without_words(rest)
        if slug:
            found[slug] = path
    return found


def _split(
    files: Mapping[str, Path], classes: Sequence[str], folder: Path
) -> dict[str, dict[str, Path]]:
    """Files of one folder by case and class."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    strangers = []
    for name, path in files.items():
        slug = class_of(name, classes)
        if slug is None:
            strangers.append(path.name)
            continue
        found[case_of(name[: len(name) - len(slug)].rstrip("_-. "))][slug] = path
    if strangers:
        rule = f"has files of no class: {', '.join(strangers[:3])}"
        raise InputError(
            folder, rule, f"The classes are {', '.join(classes)}: x_{classes[0]}.nii.gz"
        )
    return dict(found)


def case_of(name: str) -> str:
    """A file's name without words such as ``prob`` at its end.

    >>> case_of("patient_1_prob"), case_of("patient_1")
    ('patient_1', 'patient_1')
    """
    while (found := _LAST_WORD.search(name)) and found[1].lower() in WORDS:
        name = name[: found.start()]
    return name


def class_of(name: str, classes: Sequence[str]) -> str | None:
    """The class that a file's name ends with, the longest; None without one."""
    slug = class_slug(name)
    ends = [one for one in classes if slug == one or slug.endswith(f"-{one}")]
    return max(ends, key=len, default=None)


def _without_words(name: str) -> str:
    """The class in a file's name, without words such as ``prob``."""
    words = [word for word in _SIGNS.split(name) if word and word.lower() not in WORDS]
    return class_slug("-".join(words))


def _common_classes(by_case: Mapping[str, Mapping[str, Path]], folder: Path) -> tuple[str, ...]:
    """The classes that all cases have, without the background."""
    sets = {frozenset(files) for files in by_case.values()}
    if len(sets) != 1:
        rule = "has cases with different classes, and nobody says which there are"
        raise InputError(folder, rule, "Add --data, whose labels name them")
    return tuple(sorted(next(iter(sets)) - {"background"}))


def _read_classes(paths: Sequence[Path]) -> tuple[Maps, Geometry]:
    """Maps of the foreground classes, one a file, with that of the background."""
    loaded = [read_image(path) for path in paths]
    first, geometry = loaded[0]
    for path, (values, own) in zip(paths[1:], loaded[1:], strict=True):
        if values.shape != first.shape:
            rule = f"has shape {values.shape}, but {paths[0].name} has {first.shape}"
            raise InputError(path, rule, "Save all classes on one grid")
        check_grid(path, geometry, own, paths[0].name, "Save all classes on one grid")
    stacked = np.stack([values.reshape(geometry.shape) for values, _ in loaded])
    return with_background(stacked, paths[0].parent if len(paths) > 1 else paths[0]), geometry


def _stacked(folder: Path, files: Mapping[str, Path], known: Known) -> Predictions:
    """Cases of one file each, with the classes along its first or last axis."""
    cases = {}
    for name, path in files.items():
        read = partial(read_stacked, path, known.channels)
        cases[case_of(name)] = PredictedCase((Member((path,), read),))
    if not cases:
        raise InputError(folder, "has no image file", "Give the folder of the maps")
    channels = known.channels or len(next(iter(cases.values())).members[0].read()[0])
    model = model_of_files(known.model, known.classes)
    model = replace(model, classes=("background", *[None] * (channels - 1)))
    return Predictions("one file of all classes for each case", model, cases, notes=unnamed(known))


def read_stacked(path: Path, channels: int | None) -> tuple[Maps, Geometry]:
    """Maps of all classes in one file, along its last axis or its first.

    Args:
        path: Path of the file.
        channels: Number K of classes, background included; None: the shorter of the two axes has
            them, and the maps sum to 1 if the background is among them.

    Raises:
        InputError: the file cannot be read, or neither axis has K or K - 1 classes.
    """
    values, geometry = read_image(path)
    counts = {channels, channels - 1} if channels else {min(values.shape[0], values.shape[-1])}
    if values.ndim == 4 and values.shape[3] in counts:
        maps = np.moveaxis(values, -1, 0)
    elif values.ndim == 4 and values.shape[0] in counts:
        maps, geometry = values, replace(geometry, shape=values.shape[1:])
    elif values.ndim == 3 and channels == 2:
        maps = values.reshape(1, *geometry.shape)  # one class: its map alone
    else:
        rule = f"has shape {values.shape}, in which neither the first nor the last axis has the "
        rule += f"{channels or 'unknown number of'} classes, or these without the background"
        raise InputError(path, rule, "Save one map for each class, or name them by --classes")
    sums_to_one = channels is None and bool(np.abs(maps.sum(axis=0) - 1.0).max() <= TOLERANCE)
    whole = sums_to_one or len(maps) == channels
    return (summing_to_one if whole else with_background)(maps, path), geometry
