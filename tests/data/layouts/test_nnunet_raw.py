from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import UNKNOWN_CLASS
from medsegdiff.data.fitness import check
from medsegdiff.data.images import read_geometry
from medsegdiff.data.manifest import load_manifest
from medsegdiff.data.transforms import read_case_labels
from tests.data.layouts.files import image, label, save, write_json


def second_version(folder: Path, channels: int = 2, **more: Any) -> None:
    for number, name in enumerate("abc"):
        for channel in range(channels):
            file = folder / "imagesTr" / f"{name}_{channel:04d}.nii.gz"
            save(file, image(10 * number + channel))
        save(folder / "labelsTr" / f"{name}.nii.gz", label(1, 2, 3))
    described = {
        "channel_names": {str(i): f"c{i}" for i in range(channels)},
        "labels": {"background": 0, "one": 1, "two": 2, "ignore": 3},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    write_json(folder / "dataset.json", described | more)


@pytest.mark.parametrize("channels", [1, 2])
def test_second_version(tmp_path: Path, channels: int) -> None:
    second_version(tmp_path, channels)
    manifest = load_manifest(tmp_path)
    assert [case.id for case in manifest.cases] == ["a", "b", "c"]
    assert manifest.channels == tuple(f"c{i}" for i in range(channels))
    assert [p.name for p in manifest.cases[1].images] == [
        f"b_{i:04d}.nii.gz" for i in range(channels)
    ]
    assert check(manifest).fit


def test_first_version_lists_names_without_the_channel(tmp_path: Path) -> None:
    second_version(tmp_path)
    listed = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        for name in "abc"
    ]
    described = {
        "modality": {"0": "T1", "1": "T2"},
        "labels": {"0": "background", "1": "one", "2": "two", "3": "three"},
        "training": listed,
        "test": [],
    }
    write_json(tmp_path / "dataset.json", described)
    manifest = load_manifest(tmp_path)
    assert [case.id for case in manifest.cases] == ["a", "b", "c"]
    assert all(len(case.images) == 2 for case in manifest.cases)
    assert check(manifest).fit


def test_the_ignored_label_is_no_class(tmp_path: Path) -> None:
    second_version(tmp_path)
    manifest = load_manifest(tmp_path)
    assert manifest.labels == {0: "background", 1: "one", 2: "two"} and manifest.ignored == 3
    case = manifest.cases[0]
    values = read_case_labels(case, read_geometry(case.images[0]), manifest)[0]
    expected = label(1, 2, 3)
    assert np.array_equal(values == UNKNOWN_CLASS, expected == 3)
    assert np.array_equal(values == 2, expected == 2)


def test_the_ignored_label_is_the_highest(tmp_path: Path) -> None:
    second_version(tmp_path, labels={"background": 0, "ignore": 1, "two": 2, "three": 3})
    with pytest.raises(InputError, match="highest"):
        load_manifest(tmp_path)


def test_regions_are_refused(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3]}
    second_version(tmp_path, labels=labels, regions_class_order=[1, 2])
    with pytest.raises(InputError, match="regions"):
        load_manifest(tmp_path)


def test_a_missing_channel_is_named(tmp_path: Path) -> None:
    second_version(tmp_path)
    (tmp_path / "imagesTr" / "b_0001.nii.gz").unlink()
    with pytest.raises(InputError, match="b: needs files of 2 channels"):
        load_manifest(tmp_path)


def test_own_folds(tmp_path: Path) -> None:
    second_version(tmp_path)
    splits = [
        {"train": ["a", "b"], "val": ["c"]},
        {"train": ["c"], "val": ["a", "b"]},
    ]
    write_json(tmp_path / "splits_final.json", splits)
    assert load_manifest(tmp_path).folds == (("c",), ("a", "b"))
