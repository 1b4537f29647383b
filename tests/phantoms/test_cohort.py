from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom import find_series, read_series
from medsegdiff.data.fitness import check
from medsegdiff.data.manifest import datalist, load_manifest
from medsegdiff.data.transforms import LoadCased, load
from medsegdiff.phantoms.anatomy import Raters
from medsegdiff.phantoms.cohort import write_cohort, write_dicom_series

COHORTS: dict[str, dict[str, Any]] = {
    "3D": {"spatial_dims": 3, "classes": 2},
    "2D": {"spatial_dims": 2, "classes": 1},
    "3D, raters stacked": {"spatial_dims": 3, "classes": 1, "raters": 3, "stacked": True},
    "2D, raters in files, channels": {"spatial_dims": 2, "raters": 2, "channels": 2},
}


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("settings", COHORTS.values(), ids=COHORTS.keys())
def test_cohort_is_read_and_found_fit(tmp_path: Path, settings: dict[str, Any]) -> None:
    file = write_cohort(tmp_path, cases=5, size=16, **settings)
    manifest = load_manifest(file)
    report = check(file)
    assert report.problems == ()
    assert len(report.cases) == len(manifest.cases) == 5
    loader = LoadCased(
        manifest.spatial_dims, len(manifest.channels), manifest.labels, manifest.raters
    )
    for item in datalist(manifest.cases):
        loaded = load(loader, item)
        spatial = loaded["image"].shape[1:]
        assert len(spatial) == settings["spatial_dims"]
        assert loaded["image"].shape[0] == settings.get("channels", 1)
        assert loaded["label"].shape == (settings.get("raters", 1), *spatial)
        truth = sorted((tmp_path / "truth").glob(f"{item['case']}_probability_*.nii.gz"))
        assert len(truth) == settings.get("classes", 2)
        for path in truth:
            assert nib.load(path).shape == spatial
            assert nib.load(path).get_data_dtype() == np.float32


def test_stacked_and_single_files_hold_the_same(tmp_path: Path) -> None:
    same: dict[str, Any] = {"cases": 1, "spatial_dims": 2, "raters": 3, "size": 16}
    one = load_manifest(write_cohort(tmp_path / "one", stacked=True, **same))
    other = load_manifest(write_cohort(tmp_path / "other", **same))
    loader = LoadCased(2, raters=3)
    labels = [loader(datalist(manifest.cases)[0])["label"] for manifest in (one, other)]
    np.testing.assert_array_equal(*labels)


def test_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_cohort(tmp_path / name, cases=2, size=12, seed=seed)
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert first == again
    assert first["imagesTr/phantom_000.nii.gz"] != other["imagesTr/phantom_000.nii.gz"]


def test_a_case_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    write_cohort(tmp_path / "few", cases=1, size=12)
    write_cohort(tmp_path / "many", cases=2, size=12)
    few, many = contents(tmp_path / "few"), contents(tmp_path / "many")
    assert all(many[name] == content for name, content in few.items() if name != "dataset.json")


def test_written_probability_is_what_readings_follow(tmp_path: Path) -> None:
    model = Raters(shift_mm=1.0, field_mm=1.0)
    settings: dict[str, Any] = {"cases": 1, "spatial_dims": 2, "classes": 1, "size": 16}
    file = write_cohort(tmp_path, raters=400, stacked=True, disagreement=model, **settings)
    item = datalist(load_manifest(file).cases)[0]
    found = LoadCased(2, raters=400)(item)["label"].float().mean(0).numpy()
    path = tmp_path / "truth" / f"{item['case']}_probability_structure-1.nii.gz"
    expected = nib.load(path).get_fdata()
    assert expected.max() > 0.2
    assert np.abs(found - expected).max() < 0.12


@pytest.mark.parametrize(
    "wrong", [{"spatial_dims": 4}, {"cases": 0}, {"classes": 0}, {"raters": 0}, {"size": 4}]
)
def test_wrong_settings(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="phantom"):
        write_cohort(tmp_path, **wrong)


class TestDicom:
    AFFINE = np.eye(4)
    AFFINE[:3, :3] = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix() * [
        0.7,
        1.1,
        2.5,
    ]
    AFFINE[:3, 3] = (-12.5, 33.25, 4.125)
    VOLUME = np.random.default_rng(0).integers(0, 65536, (7, 9, 5)).astype(np.uint16)
    VOLUME[0, 0, 0], VOLUME[1, 1, 1] = 0, 65535

    def test_round_trip(self, tmp_path: Path) -> None:
        files = write_dicom_series(self.VOLUME, self.AFFINE, tmp_path, number=7, description="T1")
        (series,) = find_series(tmp_path)
        volume, geometry = read_series(series)
        assert (series.number, series.description, series.modality) == (7, "T1", "MR")
        np.testing.assert_array_equal(volume, self.VOLUME)
        np.testing.assert_allclose(geometry.affine, self.AFFINE, atol=1e-6)
        assert geometry.sources == tuple(files)

    def test_left_handed_axes_come_back_in_the_same_place(self, tmp_path: Path) -> None:
        affine = self.AFFINE @ np.diag([1.0, 1.0, -1.0, 1.0])
        write_dicom_series(self.VOLUME, affine, tmp_path)
        volume, geometry = read_series(find_series(tmp_path)[0])
        np.testing.assert_array_equal(volume, self.VOLUME[..., ::-1])
        np.testing.assert_allclose(geometry.affine @ [3, 2, 0, 1], affine @ [3, 2, 4, 1], atol=1e-6)

    def test_identity_is_of_patient_seed_and_series(self, tmp_path: Path) -> None:
        for folder, settings in {
            "a": {},
            "b": {"number": 2},
            "c": {"seed": 1},
            "again": {},
        }.items():
            write_dicom_series(self.VOLUME, self.AFFINE, tmp_path / folder, **settings)  # type: ignore[arg-type]
        one, two, other = (find_series(tmp_path / name)[0] for name in "abc")
        assert one.study_uid == two.study_uid != other.study_uid
        assert len({one.uid, two.uid, other.uid}) == 3
        assert contents(tmp_path / "a") == contents(tmp_path / "again")

    @pytest.mark.parametrize(
        "volume", [VOLUME.astype(float), VOLUME[0], VOLUME.astype(int) + 1, VOLUME.astype(int) - 1]
    )
    def test_values_that_do_not_fit(self, tmp_path: Path, volume: Any) -> None:
        with pytest.raises(InputError):
            write_dicom_series(volume, self.AFFINE, tmp_path)

    def test_sheared_axes(self, tmp_path: Path) -> None:
        sheared = np.eye(4)
        sheared[0, 2] = 0.2
        with pytest.raises(InputError, match="sheared"):
            write_dicom_series(self.VOLUME, sheared, tmp_path)
