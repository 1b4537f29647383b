from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.fitness import check
from medsegdiff.data.layouts.case_folders import channel_files
from medsegdiff.data.manifest import load_manifest
from tests.data.layouts.files import image, label, save, write_json


def write(root: Path, cases: Mapping[str, Sequence[str]], ending: str = "nii.gz") -> None:
    """Files of these names in folders of these names; those with ``seg`` or ``mask`` are labels."""
    for seed, (folder, names) in enumerate(cases.items()):
        for number, name in enumerate(names):
            drawn = "seg" in name or "mask" in name
            values = label(1, 4) if drawn else image(10 * seed + number)
            save(root / folder / f"{name}.{ending}", values)


def folders(names: Sequence[str], cases: str = "abcdef") -> dict[str, list[str]]:
    return {f"case_{case}": [name.format(case=case) for name in names] for case in cases}


@pytest.mark.parametrize(
    "names",
    [
        ("t1", "flair", "seg"),
        ("BraTS_{case}_t1", "BraTS_{case}_flair", "BraTS_{case}_seg"),
        ("t1_{case}", "flair_{case}", "seg_{case}"),
    ],
)
def test_files_are_channels_or_labels_by_their_names(tmp_path: Path, names: Sequence[str]) -> None:
    write(tmp_path, folders(names))
    manifest = load_manifest(tmp_path)
    assert manifest.channels == ("flair", "t1")
    assert [case.id for case in manifest.cases] == [f"case_{case}" for case in "abcdef"]
    first = manifest.cases[0]
    assert "flair" in first.images[0].name and "t1" in first.images[1].name
    assert len(first.labels) == 1 and "seg" in first.labels[0].name
    assert manifest.labels == {0: "background", 1: "class 1", 2: "class 2"}
    assert check(manifest).fit


def test_one_image_and_its_label(tmp_path: Path) -> None:
    write(tmp_path, folders(("imaging", "segmentation")))
    manifest = load_manifest(tmp_path)
    assert manifest.channels == ("channel 0",) and manifest.raters == 1
    assert all(case.labels for case in manifest.cases)


def test_labels_that_differ_in_their_reader_are_readers(tmp_path: Path) -> None:
    write(tmp_path, folders(("t1", "mask_rater1", "mask_rater2")))
    manifest = load_manifest(tmp_path)
    assert manifest.raters == 2 and len(manifest.cases[0].labels) == 2


def test_cases_without_a_label_and_files_that_few_have(tmp_path: Path) -> None:
    cases = folders(("t1", "seg"), "abcde") | {"case_f": ["t1"]}
    cases["case_a"] = ["t1", "t1_old", "seg"]
    write(tmp_path, cases)
    manifest = load_manifest(tmp_path)
    assert [len(case.labels) for case in manifest.cases] == [1, 1, 1, 1, 1, 0]
    assert manifest.channels == ("channel 0",)
    assert any("t1_old" in note for note in manifest.notes)


def test_folders_of_folders_are_patients_where_there_are_many(tmp_path: Path) -> None:
    few, many = tmp_path / "few", tmp_path / "many"
    write(few, {f"{group}/{case}": ["t1", "seg"] for group in ("HGG", "LGG") for case in "abc"})
    assert {case.patient for case in load_manifest(few).cases} == {
        f"{group}_{case}" for group in ("HGG", "LGG") for case in "abc"
    }
    write(many, {f"p{n}/{visit}": ["t1", "seg"] for n in range(5) for visit in ("v1", "v2")})
    manifest = load_manifest(many)
    assert [case.patient for case in manifest.cases[:3]] == ["p0", "p0", "p1"]
    assert manifest.cases[1].id == "p0_v2"


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"case_a": ["t1", "seg"]}, "case_a has no file 'flair'"),
        ({"case_a": ["t1", "flair", "seg", "liver_mask"]}, "case_a has several labels"),
    ],
)
def test_cases_with_other_files_are_named(
    tmp_path: Path, changed: Mapping[str, Sequence[str]], rule: str
) -> None:
    write(tmp_path, folders(("t1", "flair", "seg")) | dict(changed))
    with pytest.raises(InputError, match=rule):
        load_manifest(tmp_path)


def test_labels_may_be_called_otherwise_in_some_cases(tmp_path: Path) -> None:
    write(tmp_path, folders(("t1", "seg"), "abc") | folders(("t1", "mask"), "def"))
    manifest = load_manifest(tmp_path)
    assert manifest.raters == 1 and all(case.labels for case in manifest.cases)


def test_pairs_in_a_folder_are_cases_of_one_patient(tmp_path: Path) -> None:
    for n in range(6):
        pairs = [f"P{n}_{k}{end}" for k in range(1, 2 + n % 3) for end in ("", "_mask")]
        write(tmp_path, {f"P{n}": pairs}, "png")
    manifest = load_manifest(tmp_path)
    assert manifest.raters == 1 and len(manifest.cases) == 12
    assert any("cases of one patient" in note for note in manifest.notes)
    assert {case.patient for case in manifest.cases} == {f"P{n}" for n in range(6)}
    assert all(len(case.images) == len(case.labels) == 1 for case in manifest.cases)


def test_the_test_part_is_kept_apart(tmp_path: Path) -> None:
    write(tmp_path, {f"train/P{n}": ["t1", "seg"] for n in range(6)})
    write(tmp_path, {f"test/P{n}": ["t1", "seg"] for n in (1, 7)})
    manifest = load_manifest(tmp_path)
    assert sorted(manifest.test) == ["P7", "test_P1"]
    assert sorted(patient for fold in manifest.folds for patient in fold) == [
        f"P{n}" for n in range(6)
    ]


def test_folders_that_are_no_cases(tmp_path: Path) -> None:
    groups = {f"{group}/case_{case}": ["t1", "seg"] for group in "xy" for case in "abc"}
    write(tmp_path, groups)
    write(tmp_path, {"x": ["overview"], "x/case_a/instances": ["kidney_seg-1"]})
    write(tmp_path, {"__MACOSX/case_a": ["._t1"], ".hidden/case_a": ["t1"]})
    assert len(load_manifest(tmp_path).cases) == 6


def test_what_files_are_does_not_depend_on_the_others(tmp_path: Path) -> None:
    cases = folders(("{case}_t1_n4", "{case}_flair_n4", "{case}_seg"))
    cases |= {"case_g": ["g_t1_n4", "g_flair_n4"], "case_h": ["x_t1_n4", "y_flair_n4", "other"]}
    write(tmp_path, cases)
    manifest = load_manifest(tmp_path)
    assert manifest.channels == ("flair_n4", "t1_n4") and len(manifest.cases) == 8
    assert [path.name for path in manifest.cases[-1].images] == [
        "y_flair_n4.nii.gz",
        "x_t1_n4.nii.gz",
    ]
    assert any("other" in note for note in manifest.notes)


def test_a_preview_beside_a_volume_is_no_image(tmp_path: Path) -> None:
    write(tmp_path, folders(("imaging", "segmentation")))
    for case in "abcdef":
        save(tmp_path / f"case_{case}" / "imaging.png", image(0, (6, 5)))
    manifest = load_manifest(tmp_path)
    assert manifest.spatial_dims == 3 and check(manifest).fit


def test_a_description_may_say_the_rest(tmp_path: Path) -> None:
    write(tmp_path, folders(("t1", "seg")))
    described = {"name": "x", "labels": {"0": "background", "1": "core", "2": "oedema"}}
    described |= {"label_values": {"0": 0, "1": 1, "4": 2}}
    write_json(tmp_path / "dataset.json", described)
    manifest = load_manifest(tmp_path)
    assert manifest.name == "x" and manifest.labels[2] == "oedema"


def test_files_of_channels(tmp_path: Path) -> None:
    write(tmp_path, {"a": ["a_T1-Gd", "a_T1", "a_flair", "a_t1_seg"]})

    def found(*channels: str) -> list[str]:
        return [path.name for path in channel_files(tmp_path / "a", channels)]

    assert found("flair", "t1") == []  # or is it the one with contrast?
    assert found("t1", "T1-Gd") == ["a_T1.nii.gz", "a_T1-Gd.nii.gz"]
    assert found("flair", "T1_Gd") == ["a_flair.nii.gz", "a_T1-Gd.nii.gz"]
    assert found("flair", "t2") == found("flair", "flair") == []
