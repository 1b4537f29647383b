from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.fitness import check
from medsegdiff.data.manifest import load_manifest
from tests.data.layouts.files import image, label, save, write_json


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images", "labels"), ("imagesTr", "labelsTr"), ("Image", "Masks"), ("image", "label")],
)
@pytest.mark.parametrize("suffix", ["", "_mask", "_seg", "_label", "-seg"])
def test_files_are_paired_by_name(tmp_path: Path, images: str, labels: str, suffix: str) -> None:
    for seed, name in enumerate(("a", "b_1")):
        save(tmp_path / images / f"{name}.nii.gz", image(seed))
        save(tmp_path / labels / f"{name}{suffix}.nii.gz", label(1, 2))
    manifest = load_manifest(tmp_path)
    assert manifest.labels == {0: "background", 1: "class 1", 2: "class 2"}
    assert manifest.spatial_dims == 3 and manifest.channels == ("channel 0",)
    assert {case.id: case.labels[0].name for case in manifest.cases} == {
        name: f"{name}{suffix}.nii.gz" for name in ("a", "b_1")
    }


@pytest.mark.parametrize(
    ("values", "expected"), [((255,), {0: 0, 255: 1}), ((2, 7), {0: 0, 2: 1, 7: 2})]
)
def test_other_values_become_classes_in_their_order(
    tmp_path: Path, values: tuple[int, ...], expected: dict[int, int]
) -> None:
    for seed, name in enumerate("ab"):
        save(tmp_path / "images" / f"{name}.nii.gz", image(seed))
        save(tmp_path / "labels" / f"{name}.nii.gz", label(*values))
    manifest = load_manifest(tmp_path)
    assert {low: number for low, _, number in manifest.cases[0].label_values} == expected
    assert str(values[-1]) in manifest.notes[0]
    report = check(manifest)
    assert report.fit
    assert all(n > 0 for n in report.facts["label_voxels"].values())


@pytest.mark.parametrize("inside", [False, True])
def test_parts_of_a_set_are_no_patients(tmp_path: Path, inside: bool) -> None:
    parts = {"train": "abcd", "val": "ef", "test": "gh"}
    for part, names in parts.items():
        for seed, name in enumerate(names):
            for kind, values in (("images", image(ord(name))), ("masks", label(1))):
                below = f"{kind}/{part}" if inside else f"{part}/{kind}"
                if (part, seed, kind) != ("test", 1, "masks"):
                    save(tmp_path / below / f"{name}.nii.gz", values)
    manifest = load_manifest(tmp_path)
    before = {name: f"{part}_{name}" if inside else name for part in parts for name in parts[part]}
    labelled = {before[name] for name in "abcdefg"}
    assert {case.id for case in manifest.cases if case.labels} == labelled
    assert len({case.patient for case in manifest.cases if case.labels}) == 7
    assert sorted(manifest.test) == [before["g"]]
    assert len(manifest.folds) == 5
    assert not any(before["g"] in fold for fold in manifest.folds)
    assert check(manifest).fit


def test_names_that_repeat_in_parts_of_a_set(tmp_path: Path) -> None:
    for seed, part in enumerate(("train", "val", "test")):
        for number in range(6):
            save(tmp_path / part / "images" / f"{number}.nii.gz", image(10 * seed + number))
            save(tmp_path / part / "labels" / f"{number}.nii.gz", label(1))
    manifest = load_manifest(tmp_path)
    names = [f"{part}_{number}" for part in ("train", "val", "test") for number in range(6)]
    assert sorted(case.id for case in manifest.cases) == sorted(names)
    held_out = [patient for fold in manifest.folds for patient in fold]
    assert sorted(held_out) == [str(number) for number in range(6)]  # a leak is worse than few
    assert sorted(manifest.test) == [f"test_{number}" for number in range(6)]


def test_patients_of_the_test_may_have_several_images(tmp_path: Path) -> None:
    for part, patients in (("train", "abcdef"), ("test", "aq")):
        for patient in patients:
            for n in range(2):
                values = image(ord(patient) + 50 * n + 7 * (part == "test"))
                save(tmp_path / part / "images" / patient / f"{n}.nii.gz", values)
                save(tmp_path / part / "labels" / patient / f"{n}.nii.gz", label(1))
    manifest = load_manifest(tmp_path)
    assert sorted(manifest.test) == ["q", "test_a"]
    assert len(manifest.split("test")[1]) == 4
    assert sorted(p for fold in manifest.folds for p in fold) == list("abcdef")


def test_photographs_of_which_some_are_grey(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png", image(0, (6, 5)))
    save(tmp_path / "images" / "b.jpg", image(1, (6, 5, 3)))
    for name in "ab":
        save(tmp_path / "masks" / f"{name}_mask.png", label(255, shape=(6, 5)))
    manifest = load_manifest(tmp_path)
    assert manifest.spatial_dims == 2 and manifest.channels == ("red", "green", "blue")
    assert check(manifest).fit


def test_a_mask_with_values_in_between_is_cut_at_the_half(tmp_path: Path) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save(tmp_path / "images" / "a.png", image(0, (16, 16)))
    save(tmp_path / "masks" / "a.png", values)
    (case,) = load_manifest(tmp_path).cases
    assert case.label_values == ((0, 127, 0), (128, 255, 1))


def test_a_jpeg_mask_of_few_values_is_cut_as_well(tmp_path: Path) -> None:
    values = np.repeat(np.array([0, 3, 249, 255], np.uint8), 64).reshape(16, 16)
    save(tmp_path / "images" / "a.png", image(0, (16, 16)))
    save(tmp_path / "masks" / "a.jpg", values)
    manifest = load_manifest(tmp_path)
    assert manifest.labels == {0: "background", 1: "class 1"}
    assert manifest.cases[0].label_values == ((0, 127, 0), (128, 255, 1))


def _objects(count: int) -> np.ndarray:
    """A picture of squares of two pixels, numbered from 1 on, of which the third is lost."""
    found = np.zeros((30, 30), np.uint16)
    for number in set(range(count)) - {2}:
        row, column = divmod(number, 10)
        found[3 * row : 3 * row + 2, 3 * column : 3 * column + 2] = number + 1
    return found


def _save_pictures(folder: Path, labels: Sequence[np.ndarray]) -> None:
    for seed, values in enumerate(labels):
        save(folder / "images" / f"{seed}.png", image(seed, values.shape))
        save(folder / "masks" / f"{seed}.png", values)


@pytest.mark.parametrize(
    "counts", [(4, 12, 31, 0), (90, 70, 65, 100), (*range(12), *range(12))], ids=str
)
def test_numbers_of_objects_are_one_class(tmp_path: Path, counts: tuple[int, ...]) -> None:
    _save_pictures(tmp_path, [_objects(count) for count in counts])
    manifest = load_manifest(tmp_path)
    assert manifest.labels == {0: "background", 1: "class 1"}
    assert "number objects" in manifest.notes[0] and str(max(counts)) in manifest.notes[0]
    report = check(manifest)
    assert report.fit
    assert report.facts["label_voxels"]["class 1"] == 4 * sum(n - (n > 2) for n in counts)


@pytest.mark.parametrize(
    "labels",
    [
        [_objects(count) for count in (12, 12, 12, 11)],  # classes; one file lacks the last
        [_objects(count) for count in (1, 2, 3, 4, 5)],
        [np.tile(np.arange(n, dtype=np.uint16), (30, 2)) for n in (12, 14, 16, 17)],  # two pieces
        [_objects(12) + 13 * (_objects(12) > 0) * n for n in range(4)],  # not from 1 on
    ],
)
def test_classes_are_not_taken_for_numbers_of_objects(
    tmp_path: Path, labels: list[np.ndarray]
) -> None:
    _save_pictures(tmp_path, [values.astype(np.uint16) for values in labels])
    manifest = load_manifest(tmp_path)
    assert len(manifest.labels) > 2 and not any("objects" in note for note in manifest.notes)


def test_names_of_one_class_are_those_of_the_objects(tmp_path: Path) -> None:
    _save_pictures(tmp_path, [_objects(count) for count in (4, 12, 31, 20)])
    write_json(tmp_path / "labels.json", {"0": "background", "1": "nucleus"})
    assert load_manifest(tmp_path).labels == {0: "background", 1: "nucleus"}


@pytest.mark.parametrize("labels", [{}, {"labels": {"0": "background", "1": "object"}}])
def test_what_a_description_says_of_objects_counts(tmp_path: Path, labels: dict[str, Any]) -> None:
    _save_pictures(tmp_path, [_objects(count) for count in (30, 40, 70)])
    with pytest.raises(InputError, match="hold 70 different values") as caught:
        load_manifest(tmp_path)
    assert '"labels": {"0": "background", "1": "object"}' in caught.value.remedy
    described = {"label_values": {"0": 0, "1-999999999": 1}, **labels}
    write_json(tmp_path / "dataset.json", described)
    manifest = load_manifest(tmp_path)
    assert len(manifest.labels) == 2
    assert all(n > 0 for n in check(manifest).facts["label_voxels"].values())


def test_a_file_names_what_would_be_numbers_of_objects(tmp_path: Path) -> None:
    _save_pictures(tmp_path, [_objects(count) for count in (4, 12, 31)])
    write_json(tmp_path / "labels.json", {str(n): f"tooth {n}" for n in range(1, 32)})
    assert len(load_manifest(tmp_path).labels) == 31


def test_names_of_classes_from_a_file(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.nii.gz", image(0))
    save(tmp_path / "labels" / "a.nii.gz", label(1, 5))
    write_json(tmp_path / "labels.json", {"liver": 1, "tumour": 5, "background": 0})
    assert load_manifest(tmp_path).labels == {0: "background", 1: "liver", 2: "tumour"}


def test_what_a_description_says_itself_counts(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.nii.gz", image(0))
    save(tmp_path / "labels" / "a.nii.gz", label(1))
    write_json(tmp_path / "dataset.json", {"name": "x", "labels": {"1": "liver", "2": "cyst"}})
    manifest = load_manifest(tmp_path)
    assert manifest.name == "x" and manifest.labels[2] == "cyst"


def test_labels_without_an_image_are_named_with_the_rule(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.nii.gz", image(0))
    save(tmp_path / "images" / "scan7.nii.gz", image(1))
    save(tmp_path / "labels" / "a.nii.gz", label(1))
    save(tmp_path / "labels" / "lesion7.nii.gz", label(1))
    with pytest.raises(InputError) as caught:
        load_manifest(tmp_path)
    assert "lesion7" in caught.value.rule and "scan7" in caught.value.rule
    assert "_mask" in caught.value.remedy


def test_an_image_without_a_label_is_unlabelled(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        save(tmp_path / "images" / f"{name}.nii.gz", image(seed))
    for name in "ab":
        save(tmp_path / "labels" / f"{name}.nii.gz", label(1))
    assert [bool(case.labels) for case in load_manifest(tmp_path).cases] == [True, True, False]


def test_channel_files_are_one_case(tmp_path: Path) -> None:
    for seed, name in enumerate(("a_0000", "a_0001", "b_0000", "b_0001")):
        save(tmp_path / "images" / f"{name}.nii.gz", image(seed))
    for name in "ab":
        save(tmp_path / "labels" / f"{name}.nii.gz", label(1))
    manifest = load_manifest(tmp_path)
    assert [case.id for case in manifest.cases] == ["a", "b"] and len(manifest.channels) == 2
    assert check(manifest).fit


@pytest.mark.parametrize(
    ("of_image", "of_label"),
    [
        ("volume-{}", "segmentation-{}"),
        ("img{:03d}", "mask{:03d}"),
        ("image_{:04d}", "label_{:04d}"),
        ("{:03d}_HC", "{:03d}_HC_Annotation"),
        ("benign ({})", "benign ({})_mask"),
    ],
)
def test_words_that_name_the_kind_of_file(tmp_path: Path, of_image: str, of_label: str) -> None:
    for number in range(3):
        save(tmp_path / "images" / f"{of_image.format(number)}.png", image(number, (6, 5)))
        save(tmp_path / "labels" / f"{of_label.format(number)}.png", label(1, shape=(6, 5)))
    assert {case.id: case.labels[0].stem for case in load_manifest(tmp_path).cases} == {
        of_image.format(number): of_label.format(number) for number in range(3)
    }


def test_numbers_of_cases_are_no_channels(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "images" / f"slice_{number:04d}.png", image(number, (6, 5)))
        save(tmp_path / "masks" / f"slice_{number:04d}_mask.png", label(1, shape=(6, 5)))
    assert len(load_manifest(tmp_path).cases) == 3


def test_folders_of_patients(tmp_path: Path) -> None:
    (tmp_path / "images" / "p1").mkdir(parents=True)
    (tmp_path / "images" / "p1" / "._x.png").write_bytes(b"\x00\x05\x16\x07")
    for seed, name in enumerate(("p1/x", "p1/y", "p2/x")):
        save(tmp_path / "images" / f"{name}.png", image(seed, (6, 5)))
        save(tmp_path / "labels" / f"{name}.png", label(1, shape=(6, 5)))
    manifest = load_manifest(tmp_path)
    assert {case.id: case.patient for case in manifest.cases} == {
        "p1_x": "p1",
        "p1_y": "p1",
        "p2_x": "p2",
    }


def test_the_test_is_kept_apart(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        save(tmp_path / "imagesTr" / f"{name}.nii.gz", image(seed))
        save(tmp_path / "labelsTr" / f"{name}.nii.gz", label(1))
    save(tmp_path / "imagesTs" / "t.nii.gz", image(8))
    save(tmp_path / "imagesTs" / "u.nii.gz", image(9))
    save(tmp_path / "labelsTs" / "t.nii.gz", label(1))
    manifest = load_manifest(tmp_path)
    assert manifest.test == ("t",)
    assert sorted(p for fold in manifest.folds for p in fold) == ["a", "b", "c"]
    assert [case.id for case in manifest.held_out("test")] == ["t", "u"]
    assert [case.id for case in manifest.held_out("all")] == ["a", "b", "c", "t", "u"]


def test_a_test_image_with_the_name_of_a_training_case(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        save(tmp_path / "imagesTr" / f"{name}.nii.gz", image(seed))
        save(tmp_path / "labelsTr" / f"{name}.nii.gz", label(1))
    save(tmp_path / "imagesTs" / "a.nii.gz", image(8))
    manifest = load_manifest(tmp_path)
    assert len(manifest.held_out(0)) == 1
    for fold in ("test", "all"):
        with pytest.raises(InputError, match="names of training cases: a"):
            manifest.held_out(fold)
