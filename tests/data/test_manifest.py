from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import (
    Manifest,
    case_id,
    class_slug,
    datalist,
    default_folds,
    load_manifest,
)


def describe(folder: Path, count: int = 10, **changes: Any) -> Path:
    entries = [
        {"image": f"images/c{i}.nii.gz", "label": f"labels/c{i}.nii.gz"} for i in range(count)
    ]
    described: dict[str, Any] = {
        "name": "Made",
        "labels": {"0": "background", "1": "Left Lobe"},
        "modality": {"0": "MRI"},
        "tensorImageSize": "3D",
        "training": entries,
    }
    described |= changes
    file = folder / "dataset.json"
    file.write_text(json.dumps({k: v for k, v in described.items() if v is not None}))
    return file


def broken(folder: Path, **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        load_manifest(describe(folder, **changes))
    text = str(caught.value)
    assert "\n" not in text
    assert "dataset.json" in text
    return text


def test_file_and_folder_give_the_same(tmp_path: Path) -> None:
    file = describe(tmp_path)
    assert load_manifest(file) == load_manifest(str(tmp_path))


def test_what_the_description_says(tmp_path: Path) -> None:
    manifest = load_manifest(describe(tmp_path, licence="CC0", reference="here"))
    assert (manifest.name, manifest.licence, manifest.reference) == ("Made", "CC0", "here")
    assert manifest.labels == {0: "background", 1: "Left Lobe"}
    assert (manifest.channels, manifest.spatial_dims, manifest.raters) == (("MRI",), 3, 1)
    case = manifest.cases[3]
    assert (case.id, case.patient) == ("c3", "c3")
    assert case.images == (tmp_path / "images" / "c3.nii.gz",)
    assert case.labels == (tmp_path / "labels" / "c3.nii.gz",)


def test_relative_path_gives_absolute_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_manifest(".").cases[0].images[0] == tmp_path / "images" / "c0.nii.gz"


def test_labels_by_name(tmp_path: Path) -> None:
    labels = {"background": 0, "tumour": 2, "organ": 1}
    assert load_manifest(describe(tmp_path, labels=labels)).labels == {
        0: "background",
        1: "organ",
        2: "tumour",
    }


def test_background_need_not_be_named(tmp_path: Path) -> None:
    assert load_manifest(describe(tmp_path, labels={"1": "a"})).labels == {0: "background", 1: "a"}


def test_channels_raters_and_patients(tmp_path: Path) -> None:
    entry = {"image": ["b_0000.nii", "b_0001.nii"], "label": ["x.nii", "y.nii"], "patient": 7}
    channels = {"1": "T2", "0": "T1"}
    manifest = load_manifest(
        describe(tmp_path, training=[entry], modality=None, channel_names=channels)
    )
    assert manifest.channels == ("T1", "T2")
    assert manifest.raters == 2
    assert manifest.cases[0].id == "b"
    assert manifest.cases[0].patient == "7"
    assert len(manifest.cases[0].labels) == 2


def test_case_has_the_name_that_is_given(tmp_path: Path) -> None:
    entries = [{"image": ["a_t1.nii", "a_t2.nii"], "case": "a"}, {"image": "b.nii"}]
    assert [c.id for c in load_manifest(describe(tmp_path, training=entries)).cases] == ["a", "b"]


def test_label_values_go_with_the_items(tmp_path: Path) -> None:
    manifest = load_manifest(describe(tmp_path, label_values={"0": 0, "255": 1}))
    assert datalist(manifest.cases)[0]["label_values"] == ((0, 0, 0), (255, 255, 1))


def test_names_in_dicom_references(tmp_path: Path) -> None:
    labels = {"0": "background", "1": "liver", "2": "tumour"}
    plain = load_manifest(describe(tmp_path, labels=labels)).references
    assert (plain.names, plain.overlap) == ({1: ("liver",), 2: ("tumour",)}, "refuse")
    further = {"liver": "Leber", "tumour": ["GTV", 3, None]}
    more: dict[str, Any] = {"reference_names": further, "reference_overlap": "greatest"}
    named = load_manifest(describe(tmp_path, labels=labels, **more)).references
    assert named.names == {1: ("liver", "Leber"), 2: ("tumour", "GTV", 3, None)}
    assert named.overlap == "greatest"


def test_patient_that_is_null_is_not_given(tmp_path: Path) -> None:
    entries = [{"image": f"{name}.nii", "patient": None} for name in "ab"]
    manifest = load_manifest(describe(tmp_path, training=entries))
    assert [case.patient for case in manifest.cases] == ["a", "b"]


def test_unlabelled_case_is_listed_but_not_split(tmp_path: Path) -> None:
    file = describe(tmp_path)
    described = json.loads(file.read_text())
    del described["training"][0]["label"]
    file.write_text(json.dumps(described))
    manifest = load_manifest(file)
    assert manifest.cases[0].labels == ()
    for fold in range(len(manifest.folds)):
        assert "c0" not in {case.id for side in manifest.split(fold) for case in side}
    assert "label" not in datalist(manifest.cases)[0]
    assert datalist(manifest.cases)[1] == {
        "case": "c1",
        "image": [str(tmp_path / "images/c1.nii.gz")],
        "label": [str(tmp_path / "labels/c1.nii.gz")],
    }


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"training": []}, "training"),
        ({"training": None}, "training"),
        ({"training": [{"label": "a.nii"}]}, "training[0]"),
        ({"training": [{"image": []}]}, "empty"),
        ({"training": [{"image": 3}]}, "not 3"),
        ({"training": [{"image": "a/x.nii"}, {"image": "b/x.nii.gz"}]}, "several are x"),
        ({"labels": None}, "labels"),
        ({"labels": {"0": "background"}}, "without a gap"),
        ({"labels": {"0": "background", "2": "a"}}, "[0, 2]"),
        ({"labels": {"background": 0, "a": [1, 2]}}, "whole numbers"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "twice"),
        ({"labels": {"0": "background", "1": "a b", "2": "A-B"}}, "a-b"),
        ({"modality": "MRI"}, "channels"),
        ({"tensorImageSize": "5D"}, "5D"),
        ({"raters": 0}, "raters"),
        ({"raters": "four"}, "raters"),
        ({"folds": ["c0"]}, "folds"),
        ({"test_patients": "c0"}, "test_patients"),
        ({"published": "many"}, "published"),
        ({"label_values": {"255": 7}}, "label_values"),
        ({"label_values": {"9" * 5000: 1}}, "label_values"),
        ({"training": [{"image": "a.nii", "case": "../a"}]}, "case"),
        ({"training": [{"image": "a.nii", "case": ".."}]}, "cannot name a folder: '..'"),
        ({"reference_names": ["a"]}, "reference_names"),
        ({"reference_names": {"other": ["a"]}}, "lists of names for some of"),
        ({"reference_names": {"a": [1.5]}, "labels": {"1": "a"}}, "names, numbers or null"),
        ({"reference_overlap": "last"}, "('refuse', 'greatest'), not 'last'"),
    ],
)
def test_each_broken_description_is_one_clear_line(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    assert what in broken(tmp_path, **changes)


@pytest.mark.parametrize(
    ("names", "left"), [(["...nii.gz"], "'..'"), (["_0000.nii", "_0001.nii"], "''")]
)
def test_file_whose_name_would_lead_out_of_the_output_folder(names: list[str], left: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"{names[0]}: its name leaves {left} for")):
        case_id([Path(name) for name in names])


@pytest.mark.parametrize("content", [b"not json", b"[1]", b"\xff\xfe\x00"])
def test_file_that_is_no_description(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "dataset.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match="JSON"):
        load_manifest(file)


class TestSplit:
    def test_sides_are_disjoint_and_complete(self, tmp_path: Path) -> None:
        entries = [
            {"image": f"{i}.nii", "label": f"{i}l.nii", "patient": f"p{i % 9}"} for i in range(30)
        ]
        manifest = load_manifest(describe(tmp_path, training=entries))
        validated: list[str] = []
        for fold in range(5):
            training, validation = manifest.split(fold)
            assert {case.patient for case in training}.isdisjoint(c.patient for c in validation)
            assert len(training) + len(validation) == 30
            validated += [case.id for case in validation]
        assert sorted(validated) == sorted(case.id for case in manifest.cases)

    def test_given_folds_are_kept_and_strangers_left_out(self, tmp_path: Path) -> None:
        manifest = load_manifest(describe(tmp_path, folds=[["c1"], ["c2", "c5"]]))
        training, validation = manifest.split(1)
        assert [case.id for case in training] == ["c1"]
        assert [case.id for case in validation] == ["c2", "c5"]

    def test_patients_of_the_test_are_in_no_fold(self, tmp_path: Path) -> None:
        manifest = load_manifest(describe(tmp_path, test_patients=["c1", "c4"]))
        assert {patient for fold in manifest.folds for patient in fold}.isdisjoint({"c1", "c4"})
        training, test = manifest.split("test")
        assert ([case.id for case in test], len(training)) == (["c1", "c4"], 8)

    def test_patient_in_a_fold_and_the_test(self, tmp_path: Path) -> None:
        file = describe(tmp_path, folds=[["c1"], ["c2"]], test_patients=["c2"])
        with pytest.raises(InputError, match=r"several folds: folds\[1\]\[0\], test_patients\[0\]"):
            load_manifest(file).split(0)

    def test_no_test(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="fold test leaves no labelled case to validate"):
            load_manifest(describe(tmp_path)).split("test")

    @pytest.mark.parametrize("fold", [-1, 5])
    def test_no_such_fold(self, tmp_path: Path, fold: int) -> None:
        with pytest.raises(InputError, match="folds 0 to 4"):
            load_manifest(describe(tmp_path)).split(fold)

    def test_patient_in_two_folds(self, tmp_path: Path) -> None:
        manifest = load_manifest(describe(tmp_path, folds=[["c1", "c2"], ["c2"]]))
        with pytest.raises(InputError, match=r"several folds: folds\[0\]\[1\], folds\[1\]\[0\]"):
            manifest.split(0)

    def test_nothing_to_train_on(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="train on"):
            load_manifest(describe(tmp_path, count=1)).split(0)

    def test_nothing_to_validate_with(self, tmp_path: Path) -> None:
        manifest = load_manifest(describe(tmp_path, folds=[["c1"], ["stranger"]]))
        with pytest.raises(InputError, match="validate"):
            manifest.split(1)


class TestDefaultFolds:
    def test_depend_on_the_patients_alone(self) -> None:
        patients = [f"p{i}" for i in range(23)]
        assert default_folds(patients) == default_folds(list(reversed(patients)) * 2)

    def test_are_even(self) -> None:
        sizes = [len(fold) for fold in default_folds(f"p{i}" for i in range(23))]
        assert sizes == [5, 5, 5, 4, 4]

    def test_never_empty(self) -> None:
        assert sorted(default_folds(["a", "b", "c"])) == [("a",), ("b",), ("c",)]


def test_pinned_hippocampus_folds_are_the_default(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSEGDIFF_DATA", str(shared_data))
    manifest: Manifest = load_manifest("hippocampus_mr")
    assert len(manifest.cases) == 208
    assert manifest.folds == default_folds(case.patient for case in manifest.cases)
    assert [len(side) for side in manifest.split(0)] == [166, 42]


def test_slug() -> None:
    assert class_slug("GD-enhancing Tumour (T1)") == "gd-enhancing-tumour--t1-"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.b.nii.gz"], "a.b"),
        (["scan_0001.nii.gz"], "scan_0001"),
        (["s_0000.nii.gz", "s_0001.nii.gz"], "s"),
        (["series 3"], "series 3"),
        (["EYE.PNG"], "EYE"),
    ],
)
def test_case_id(names: list[str], expected: str) -> None:
    assert case_id([Path("some/where") / name for name in names]) == expected


@pytest.mark.parametrize("value", [0.5, "one", {"a": 1}, None])
def test_notes_are_a_list_of_sentences(tmp_path: Path, value: Any) -> None:
    described = json.loads(describe(tmp_path).read_text()) | {"notes": value}
    (tmp_path / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="'notes' must be a list of sentences"):
        load_manifest(tmp_path)
