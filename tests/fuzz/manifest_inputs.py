"""Damaged ``dataset.json``; what is accepted lists the cases that a plain JSON reader finds."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medsegdiff.core.errors import InputError
from medsegdiff.data.fitness import check
from medsegdiff.data.manifest import Manifest, datalist, load_manifest
from medsegdiff.phantoms.cohort import write_cohort
from tests.fuzz.isolation import Attempt
from tests.fuzz.mutations import damaged, damaged_json

_FURTHER = {
    "folds": [["phantom_000"], ["phantom_001"]],
    "test_patients": ["phantom_002"],
    "label_values": {"0": 0, "1-2": 1, "3": 2},
    "reference_names": {"class 1": ["a", 3, None]},
    "reference_overlap": "refuse",
    "published": 10,
    "raters": 1,
    "spacing": {"phantom_000": [0.1, 0.2]},
    "test": ["images/a.nii.gz", {"image": "images/b.nii.gz"}],
    "channel_names": {"0": "MRI"},
    "tensorImageSize": "3D",
    "notes": ["a note"],
}


def attempt_manifest(folder: Path) -> Attempt:
    """A description of three tiny cases, some with all keys that there are."""
    described = json.loads(write_cohort(folder, cases=3, size=8, classes=2).read_text())

    def attempt(rng: np.random.Generator, place: Path) -> bool:
        place = place / "a" / "b"  # so that ".." is no large folder
        place.mkdir(parents=True)
        content = dict(described)
        for key, value in _FURTHER.items():
            if rng.random() < 0.3:
                content[key] = value
        for image in ("images", "imagesTr", "labels", "labelsTr"):
            if (folder / image).is_dir():
                (place / image).symlink_to(folder / image)
        if rng.random() < 0.8:
            content = damaged_json(content, rng)
            text = json.dumps(content).encode("utf-8", "surrogatepass")
        else:
            text = damaged(json.dumps(content).encode(), rng)
        (place / "dataset.json").write_bytes(text)
        manifest = load_manifest(place if rng.random() < 0.5 else place / "dataset.json")
        if not manifest.layout:  # else its cases are those of the folders
            _compare(manifest, json.loads(text.decode("utf-8")))
        folds: list[int | Literal["test"]] = [*range(len(manifest.folds)), "test"]
        for fold in folds:
            with suppress(InputError):
                datalist(manifest.held_out(fold))
            with suppress(InputError):
                manifest.split(fold)
        with suppress(InputError):
            manifest.held_out("all")
        check(manifest)
        return True

    return attempt


def _compare(manifest: Manifest, content: dict[str, Any]) -> None:
    assert len(manifest.cases) == len(content["training"])
    for case, entry in zip(manifest.cases, content["training"], strict=True):
        images, labels = (
            [str(manifest.root / one) for one in ([paths] if isinstance(paths, str) else paths)]
            for paths in (entry["image"], entry.get("label") or [])
        )
        assert [str(path) for path in case.images] == images
        assert [str(path) for path in case.labels] == labels
    given = content["labels"]  # either way round
    for number, name in manifest.labels.items():
        assert number == 0 or name == str(given.get(str(number))) or given.get(name) == number
    if content.get("folds") is not None:
        assert [list(fold) for fold in manifest.folds] == [
            [str(patient) for patient in fold] for fold in content["folds"]
        ]
