from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import load_manifest
from medsegdiff.data.named_sets import find_set, manifest_names, read_named, split_place

LISTED = [name for name in manifest_names() if "layout" not in read_named(name)]
"""Descriptions whose cases do not depend on what was downloaded."""


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.delenv("MEDSEGDIFF_DATA", raising=False)
    return tmp_path / "below"


def describe(folder: Path) -> None:
    entries = [{"image": f"{name}.nii", "label": f"{name}l.nii"} for name in "ab"]
    described = {"labels": {"0": "background", "1": "a"}, "training": entries}
    (folder / "dataset.json").write_text(json.dumps(described))


@pytest.mark.parametrize("path", ["nowhere/at/all", "missing.json", "/nowhere", "a/b=c"])
@pytest.mark.usefixtures("elsewhere")
def test_wrong_path(path: str) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        find_set(path)


@pytest.mark.usefixtures("elsewhere")
def test_unknown_name_gets_the_closest() -> None:
    with pytest.raises(InputError, match="Did you mean hippocampus_mr"):
        find_set("hipocampus")


@pytest.mark.usefixtures("elsewhere")
def test_known_name_without_data() -> None:
    with pytest.raises(InputError, match="known data set") as caught:
        find_set("hippocampus_mr")
    assert "MEDSEGDIFF_DATA" in caught.value.remedy
    assert "medicaldecathlon" in caught.value.remedy
    assert "hippocampus_mr=FOLDER" in caught.value.remedy


@pytest.mark.parametrize("empty", [True, False])
def test_folder_without_description(elsewhere: Path, empty: bool) -> None:
    if not empty:
        (elsewhere / "a.nii.gz").touch()
    with pytest.raises(InputError, match="is empty" if empty else "has none"):
        find_set(elsewhere)


@pytest.mark.parametrize("place", [".", "../shared/data"])
@pytest.mark.usefixtures("elsewhere")
def test_data_beside_the_working_directory(place: str) -> None:
    folder = Path(place) / "hippocampus"
    folder.mkdir(parents=True)
    describe(folder)
    manifest = load_manifest("hippocampus_mr")
    assert manifest.root.samefile(folder)
    assert manifest.labels[1] == "Anterior"  # the named description has the last word


def test_name_with_a_place(elsewhere: Path) -> None:
    describe(elsewhere)
    assert load_manifest("hippocampus_mr=.").root.samefile(elsewhere)


def test_folder_whose_name_has_an_equals_sign(elsewhere: Path) -> None:
    folder = elsewhere / "acdc=1"
    folder.mkdir()
    describe(folder)
    assert split_place(folder) == (str(folder), None)
    assert load_manifest(folder).root == folder


@pytest.mark.parametrize("name", LISTED)
def test_every_named_description_fits_its_data(
    name: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSEGDIFF_DATA", str(shared_data))
    if not (shared_data / read_named(name)["folder"]).is_dir():
        pytest.skip(f"{name} is not among the real data")
    manifest = load_manifest(name)
    assert manifest.name == name
    assert manifest.licence
    assert manifest.reference
    assert all(path.exists() for case in manifest.cases for path in case.images + case.labels)
    assert {patient for fold in manifest.folds for patient in fold} == {
        case.patient for case in manifest.cases
    }


def test_every_key_of_a_named_description_is_documented() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "data_set_description.md"
    cells = re.findall(r"^\| *(`[^|]*?) *\|", page.read_text("utf-8"), re.M)
    documented = {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}
    assert {key for name in manifest_names() for key in read_named(name)} <= documented
