from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.dicom import find_series, read_series
from medsegdiff.data.fitness import check
from medsegdiff.data.manifest import datalist, load_manifest
from medsegdiff.data.public.conversion import convert
from medsegdiff.data.public.lidc_idri import read_xml
from medsegdiff.data.transforms import LoadCased, load
from tests.data.public.imitations import LIDC_AFFINE, ddti, lidc, square_outline


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lidc(tmp_path_factory.mktemp("raw") / "LIDC-IDRI")


@pytest.fixture(scope="module")
def crops(scans: Path) -> Path:
    output = scans.parent / "converted"
    assert convert(f"lidc_idri={scans}", output) == {}
    return output


class TestLidc:
    def test_nothing_is_wrong_but_that_one_patient_is_not_enough(self, crops: Path) -> None:
        report = check(crops)
        (problem,) = report.problems
        assert problem.rule == "no fold can be trained: there are labels of 1 patient"
        assert (report.facts["cases"], report.facts["patients"], report.facts["raters"]) == (
            2,
            1,
            4,
        )
        assert load_manifest(f"lidc_idri={crops}").cases == load_manifest(crops).cases

    def test_readers_are_where_they_drew(self, crops: Path) -> None:
        image = nib.load(crops / "labelsTr" / "LIDC-IDRI-0001_01.nii.gz")
        label = np.asanyarray(image.dataobj)
        assert label.shape == (64, 64, 2, 4)
        corner = np.linalg.inv(LIDC_AFFINE) @ image.affine[:, 3]
        x, y, z = (int(value) for value in np.rint(corner[:3]))
        assert z == 1
        for rater in range(3):  # a square of 9 whose edge does not count: 7 remain
            expected = np.zeros((64, 64, 2), dtype=np.uint8)
            expected[41 + rater - x : 48 + rater - x, 51 - y : 58 - y] = 1
            if rater == 1:  # its hole of 5, whose edge is not part of the hole
                expected[44 - x : 47 - x, 53 - y : 56 - y, 1] = 0
            np.testing.assert_array_equal(label[..., rater], expected)
        assert not label[..., 3].any()

    def test_image_is_the_scan(self, crops: Path, scans: Path) -> None:
        values, geometry = read_series(find_series(scans / "LIDC-IDRI-0001")[0])
        for file in sorted((crops / "imagesTr").iterdir()):
            crop = nib.load(file)
            start = np.linalg.inv(geometry.affine) @ crop.affine[:, 3]
            x, y, z = np.rint(start[:3]).astype(int)
            part = values[x : x + crop.shape[0], y : y + crop.shape[1], z : z + crop.shape[2]]
            np.testing.assert_array_equal(np.asanyarray(crop.dataobj), part)

    def test_nodule_of_one_reader(self, crops: Path) -> None:
        label = np.asanyarray(nib.load(crops / "labelsTr" / "LIDC-IDRI-0001_02.nii.gz").dataobj)
        assert label.sum(axis=(0, 1, 2)).tolist() == [0, 0, 0, 16]

    def test_a_training_item(self, crops: Path) -> None:
        item = datalist(load_manifest(crops).cases)[0]
        loaded = load(LoadCased(2, raters=4, labels=[0, 1]), item)
        assert loaded["label"].shape == (4, 64, 64, 2) == (4, *loaded["image"].shape[1:])

    def test_small_nodules_and_radiographs_are_left_out(self, tmp_path: Path, scans: Path) -> None:
        _, annotations = read_xml(next(scans.rglob("LIDC-IDRI-0002/*/*/*.xml")))
        assert annotations == []
        file = tmp_path / "cxr.xml"
        file.write_text('<IdriReadMessage xmlns="http://www.nih.gov"/>')
        assert read_xml(file) == ("", [])

    def test_annotations_apart_from_the_scans(self, tmp_path: Path) -> None:
        root = lidc(tmp_path / "LIDC-IDRI")
        (root / "tcia-lidc-xml").mkdir()
        for i, file in enumerate(sorted(root.rglob("*.xml"))):
            file.rename(root / "tcia-lidc-xml" / f"{i}.xml")
        assert convert(f"lidc_idri={root}", tmp_path / "out") == {}
        assert len(load_manifest(tmp_path / "out").cases) == 2

    def test_what_fails_is_told_and_the_rest_written(self, tmp_path: Path) -> None:
        root = lidc(tmp_path / "LIDC-IDRI")
        next((root / "LIDC-IDRI-0002").rglob("*.xml")).write_text("<LidcReadMessage")
        failures = convert(f"lidc_idri={root}", tmp_path / "out")
        assert set(failures) == {"069.xml", "LIDC-IDRI-0002"}
        assert len(load_manifest(tmp_path / "out").cases) == 2

    def test_slice_that_is_missing_at_the_end(self, tmp_path: Path) -> None:
        root = lidc(tmp_path / "LIDC-IDRI")
        for k in (3, 4):
            next((root / "LIDC-IDRI-0001").rglob(f"{k:04d}.dcm")).unlink()
        with pytest.raises(InputError, match=r"z = -92\.5 mm lies in none"):
            convert(f"lidc_idri={root}", tmp_path / "out")

    def test_as_downloaded_it_is_not_read(self, scans: Path) -> None:
        with pytest.raises(InputError, match="medsegdiff convert lidc_idri="):
            load_manifest(f"lidc_idri={scans}")


class TestDdti:
    def test_cut_off_file_is_told_and_the_rest_written(self, tmp_path: Path) -> None:
        failures = convert(f"ddti={ddti(tmp_path / 'raw')}", tmp_path / "out")
        assert set(failures) == {"3.xml"} and "outlines cannot be read" in failures["3.xml"]
        manifest = load_manifest(f"ddti={tmp_path / 'out'}")
        assert [(case.id, case.patient) for case in manifest.cases] == [
            ("ddti_1_1", "1"),
            ("ddti_2_1", "2"),
        ]
        assert check(manifest).fit

    def test_mask_lies_within_the_outline_and_on_it(self, tmp_path: Path) -> None:
        convert(f"ddti={ddti(tmp_path / 'raw')}", tmp_path / "out")
        found = np.asarray(Image.open(tmp_path / "out" / "labelsTr" / "ddti_1_1.png"))
        expected = np.zeros((12, 16), dtype=np.uint8)
        expected[3:9, 2:10] = 1
        np.testing.assert_array_equal(found, expected)

    def test_as_downloaded_it_is_not_read(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="has to be converted once"):
            load_manifest(f"ddti={ddti(tmp_path)}")


@pytest.mark.parametrize("data", ["acdc", "ddti", "/somewhere"])
def test_what_is_not_converted(data: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ddti=FOLDER, lidc_idri=FOLDER"):
        convert(data, tmp_path / "out")


def test_wrong_folder(tmp_path: Path) -> None:
    right = ddti(tmp_path / "in" / "ddti")
    with pytest.raises(InputError, match=f"Give ddti={right}"):
        convert(f"ddti={tmp_path / 'in'}", tmp_path / "out")


def test_output_in_use(tmp_path: Path) -> None:
    ddti(tmp_path / "raw")
    with pytest.raises(InputError, match="is not empty"):
        convert(f"ddti={tmp_path / 'raw'}", tmp_path)


def test_description_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was interrupted is not taken for complete."""
    root = lidc(tmp_path / "LIDC-IDRI")
    monkeypatch.setattr("medsegdiff.data.public.conversion.write_json", lambda *of: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convert(f"lidc_idri={root}", tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()
    with pytest.raises(InputError, match=r"missing: dataset\.json"):
        load_manifest(f"lidc_idri={tmp_path / 'out'}")


def test_outline_of_the_imitation_is_closed() -> None:
    points = square_outline(3, 4, 5)
    assert len(points) == len(set(points)) == 16


def test_result_names_its_source(crops: Path) -> None:
    described = json.loads((crops / "dataset.json").read_text())
    assert described["licence"] == "CC BY 3.0" and "TCIA" in described["reference"]
