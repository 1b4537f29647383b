"""A wrong path, another set, an archive, and an unfinished download: each is told as what it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.fitness import check
from medsegdiff.data.manifest import load_manifest
from tests.data.public.imitations import acdc, amos, brats, decathlon, isic, refuge


def refused(data: str) -> str:
    with pytest.raises(InputError) as caught:
        load_manifest(data)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_no_such_folder(tmp_path: Path) -> None:
    assert "nowhere: no such folder" in refused(f"acdc={tmp_path / 'nowhere'}")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "acdc.zip").touch()
    assert "is a file" in refused(f"acdc={tmp_path / 'acdc.zip'}")


def test_unknown_set(tmp_path: Path) -> None:
    assert "Did you mean acdc?" in refused(f"acdcc={tmp_path}")


def test_empty_folder(tmp_path: Path) -> None:
    text = refused(f"acdc={tmp_path}")
    assert "the folder is empty" in text and "training/patient*/" in text and "acdc.md" in text


def test_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    assert "does not look like brats2021" in refused(f"brats2021={tmp_path}")


@pytest.mark.parametrize("levels", ["database", "ACDC/database"])
def test_set_lies_below(tmp_path: Path, levels: str) -> None:
    right = acdc(tmp_path / levels)
    text = refused(f"acdc={tmp_path}")
    assert "lies below" in text and f"Give acdc={right}" in text


@pytest.mark.parametrize("part", ["training", "training/patient001"])
def test_set_lies_above(tmp_path: Path, part: str) -> None:
    right = acdc(tmp_path / "database")
    text = refused(f"acdc={right / part}")
    assert "only a part" in text and f"Give acdc={right}" in text


def test_another_set(tmp_path: Path) -> None:
    assert "is brats2020, not brats2021" in refused(f"brats2021={brats(tmp_path, 2020)}")


def test_another_task(tmp_path: Path) -> None:
    assert "is msd_heart, not msd_liver" in refused(f"msd_liver={decathlon(tmp_path, 'msd_heart')}")


def test_archives_that_are_not_unpacked(tmp_path: Path) -> None:
    for part in ("Input", "GroundTruth"):
        (tmp_path / f"ISIC2018_Task1_Training_{part}.zip").touch()
    text = refused(f"isic2018={tmp_path}")
    assert "ISIC2018_Task1_Training_GroundTruth.zip and 1 other. Unpack" in text


def test_archive_in_place_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEGDIFF_DATA", str(tmp_path))
    (tmp_path / "Task09_Spleen.tar").touch()
    assert f"Unpack {tmp_path / 'Task09_Spleen.tar'}" in refused("msd_spleen")


def test_name_alone_finds_the_usual_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSEGDIFF_DATA", str(tmp_path))
    decathlon(tmp_path / "Task09_Spleen", "msd_spleen")
    assert len(load_manifest("msd_spleen").cases) == 3


class TestIncomplete:
    def test_one_file(self, tmp_path: Path) -> None:
        root = decathlon(tmp_path, "msd_brain_tumour")
        (root / "imagesTr" / "BRATS_002.nii.gz").unlink()
        text = refused(f"msd_brain_tumour={root}")
        assert "1 of 6 files missing: imagesTr/BRATS_002.nii.gz. Get" in text

    def test_a_folder(self, tmp_path: Path) -> None:
        root = decathlon(tmp_path, "msd_brain_tumour")
        shutil.rmtree(root / "labelsTr")
        assert "labelsTr/BRATS_001.nii.gz and 2 others" in refused(f"msd_brain_tumour={root}")

    def test_the_description(self, tmp_path: Path) -> None:
        root = decathlon(tmp_path, "msd_colon")
        (root / "dataset.json").unlink()
        assert "missing: dataset.json" in refused(f"msd_colon={root}")

    def test_half_a_description(self, tmp_path: Path) -> None:
        root = decathlon(tmp_path, "msd_colon")
        file = root / "dataset.json"
        file.write_text(file.read_text()[:50])
        assert "dataset.json: not readable" in refused(f"msd_colon={root}")

    def test_a_channel(self, tmp_path: Path) -> None:
        root = brats(tmp_path, 2021)
        (root / "BraTS2021_00002" / "BraTS2021_00002_t2.nii.gz").unlink()
        assert "BraTS2021_00002/BraTS2021_00002_t2.nii.gz" in refused(f"brats2021={root}")

    def test_masks_still_packed(self, tmp_path: Path) -> None:
        root = isic(tmp_path)
        shutil.rmtree(root / "ISIC2018_Task1_Test_GroundTruth")
        (root / "ISIC2018_Task1_Test_GroundTruth.zip").touch()
        text = refused(f"isic2018={root}")
        assert "ISIC_0000020_segmentation.png and 2 others" in text
        assert "Unpack ISIC2018_Task1_Test_GroundTruth.zip" in text

    def test_an_image_with_a_mask(self, tmp_path: Path) -> None:
        root = refuge(tmp_path)
        (root / "Validation" / "Images" / "V0001.jpg").unlink()
        assert "missing: Validation/V0001.jpg" in refused(f"refuge2={root}")

    def test_what_says_the_frames(self, tmp_path: Path) -> None:
        root = acdc(tmp_path)
        (root / "training" / "patient002" / "Info.cfg").unlink()
        assert "missing: training/patient002/Info.cfg" in refused(f"acdc={root}")

    def test_file_without_content(self, tmp_path: Path) -> None:
        root = amos(tmp_path)
        (root / "imagesTr" / "amos_0004.nii.gz").write_bytes(b"")
        text = refused(f"amos={root}")
        assert "without content: imagesTr/amos_0004.nii.gz" in text and "again" in text

    @pytest.mark.parametrize("name", ["amos_0004.nii.gz", "amos_0507.nii.gz"])
    def test_truncated_file_is_found_by_check(self, tmp_path: Path, name: str) -> None:
        file = amos(tmp_path) / "imagesTr" / name
        file.write_bytes(file.read_bytes()[:-200])
        report = check(f"amos={tmp_path}")
        (problem,) = [p for p in report.problems if p.severity == "error"]
        assert problem.case == file.name.split(".")[0] and "cannot be read" in problem.rule

    def test_truncated_photograph_is_found_by_check(self, tmp_path: Path) -> None:
        file = isic(tmp_path) / "ISIC2018_Task1-2_Test_Input" / "ISIC_0000020.jpg"
        file.write_bytes(file.read_bytes()[:-100])
        assert not check(f"isic2018={tmp_path}").fit
