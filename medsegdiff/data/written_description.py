"""Write the description of a data set, with all that was inferred, as a ``dataset.json``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from medsegdiff.core.atomic_files import write_json
from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import Case, Manifest, load_manifest
from medsegdiff.data.named_sets import find_set

_FOUND_AGAIN = ("folder", "layout", "notes", "file_ending", "numTraining", "dataset")
"""Keys that say where and how cases are found, which the written file lists instead."""


def write_description(data: str | Path, file: Path) -> None:
    """Write a description that is read to the same manifest as ``data``.

    Paths are relative to the written file where the data lie below it, else absolute.

    Args:
        data: Data set, as :func:`~medsegdiff.data.manifest.load_manifest` takes it.
        file: Path of the file to write.

    Raises:
        InputError: The file exists, or the data set cannot be read.
    """
    if file.exists():
        raise InputError(file, "exists", "Give another name, or remove it")
    found, manifest = find_set(data), load_manifest(data)
    described = {k: v for k, v in found.described.items() if k not in _FOUND_AGAIN}
    place = file.parent.absolute()
    described |= {
        "name": manifest.name,
        "labels": {str(value): name for value, name in manifest.labels.items()},
        "training": [_entry(case, place) for case in manifest.cases],
        "test": [_entry(case, place) for case in manifest.test_images],
        "folds": [list(fold) for fold in manifest.folds],
        "test_patients": list(manifest.test),
    }
    sizes = {case.id: list(case.spacing) for case in _all(manifest) if case.spacing}
    if sizes:
        described["spacing"] = sizes
    if manifest.ignored is not None:
        described["labels"][str(manifest.ignored)] = "ignore"
    write_json(file, described)


def _all(manifest: Manifest) -> tuple[Case, ...]:
    return (*manifest.cases, *manifest.test_images)


def _entry(case: Case, place: Path) -> dict[str, Any]:
    entry = {"case": case.id, "patient": case.patient, "image": _paths(case.images, place)}
    return entry | ({"label": _paths(case.labels, place)} if case.labels else {})


def _paths(paths: tuple[Path, ...], place: Path) -> list[str]:
    absolute = [Path(os.path.abspath(path)) for path in paths]
    below = [path.is_relative_to(place) for path in absolute]
    return [
        (path.relative_to(place) if inside else path).as_posix()
        for path, inside in zip(absolute, below, strict=True)
    ]
