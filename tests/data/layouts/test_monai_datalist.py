from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.fitness import check
from medsegdiff.data.manifest import load_manifest
from tests.data.layouts.files import image, label, save, write_json


def entries(folder: Path, names: str, **more: Any) -> list[dict[str, Any]]:
    for name in names:
        save(folder / f"{name}.nii.gz", image(ord(name)))
        save(folder / f"{name}_seg.nii.gz", label(1, 2))
    return [{"image": f"{n}.nii.gz", "label": f"{n}_seg.nii.gz", **more} for n in names]


def test_fold_keys_are_folds(tmp_path: Path) -> None:
    training = entries(tmp_path, "ab", fold=1) + entries(tmp_path, "cd", fold=0)
    write_json(tmp_path / "list.json", {"training": training})
    manifest = load_manifest(tmp_path / "list.json")
    assert manifest.folds == (("c", "d"), ("a", "b"))
    assert [case.id for case in manifest.split(0)[1]] == ["c", "d"]
    assert manifest.labels == {0: "background", 1: "class 1", 2: "class 2"}
    assert check(manifest).fit


def test_validation_is_the_first_fold_and_testing_is_kept(tmp_path: Path) -> None:
    described = {
        "training": entries(tmp_path, "ab"),
        "validation": entries(tmp_path, "c"),
        "testing": [*entries(tmp_path, "d"), {"image": entries(tmp_path, "e")[0]["image"]}],
    }
    write_json(tmp_path / "list.json", described)
    manifest = load_manifest(tmp_path / "list.json")
    assert manifest.folds == (("c",), ("a", "b")) and manifest.test == ("d",)
    assert [case.id for case in manifest.held_out("test")] == ["d", "e"]


def test_a_fold_for_some_alone(tmp_path: Path) -> None:
    training = entries(tmp_path, "ab", fold=1) + entries(tmp_path, "c")
    write_json(tmp_path / "list.json", {"training": training})
    with pytest.raises(InputError, match="others none"):
        load_manifest(tmp_path / "list.json")


def test_images_of_one_patient_in_two_folds_are_found(tmp_path: Path) -> None:
    training = entries(tmp_path, "a", fold=0, patient="x") + entries(
        tmp_path, "b", fold=1, patient="x"
    )
    write_json(tmp_path / "list.json", {"training": training})
    assert not check(tmp_path / "list.json").fit
