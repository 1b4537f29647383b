"""Predictions that cannot be used, as people have them, and what they are told."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.other_models.adopt_predictions import adopt
from medsegdiff.other_models.case_images import images_of_folder
from medsegdiff.other_models.chosen_classes import chosen_labels, parse_classes
from medsegdiff.other_models.nifti_maps import model_of_files, read_stacked
from medsegdiff.other_models.own_calibration import calibration_of
from medsegdiff.other_models.predicted import Known
from medsegdiff.other_models.prediction_layouts import found_predictions

SHAPE = (6, 5, 4)
KNOWN = Known(frozenset({"a", "b"}), ("liver", "spleen"), 3)
ALONE = Known(frozenset(), (), None)


def save(path: Path, values: NDArray[Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full(SHAPE, 0.25) if values is None else values
    nib.save(nib.Nifti1Image(array.astype(np.float32), np.eye(4)), path)
    return path


class TestMapsInImageFiles:
    def test_a_file_of_no_class(self, tmp_path: Path) -> None:
        for name in ("a_liver", "a_spleen", "b_kidney"):
            save(tmp_path / f"{name}.nii.gz")
        with pytest.raises(InputError, match=r"has files of no class: b_kidney.nii.gz"):
            found_predictions([tmp_path], KNOWN)

    def test_classes_that_nobody_names_are_those_of_all_cases(self, tmp_path: Path) -> None:
        for name in ("a/liver", "a/background", "b/prob_liver"):
            save(tmp_path / f"{name}.nii.gz")
        with pytest.raises(InputError, match="cases with different classes"):
            found_predictions([tmp_path], ALONE)
        save(tmp_path / "b" / "background.nii.gz", np.full(SHAPE, 0.75))
        found = found_predictions([tmp_path], ALONE)
        assert found.model.classes == ("background", "liver") and set(found.cases) == {"a", "b"}
        maps, _ = found.cases["b"].members[0].read()
        np.testing.assert_allclose(maps, np.broadcast_to([[[[0.75]]], [[[0.25]]]], (2, *SHAPE)))

    def test_classes_on_other_grids(self, tmp_path: Path) -> None:
        save(tmp_path / "a" / "liver.nii.gz")
        save(tmp_path / "a" / "spleen.nii.gz", np.zeros((6, 5, 3)))
        found = found_predictions([tmp_path], KNOWN)
        with pytest.raises(InputError, match="Save all classes on one grid"):
            found.cases["a"].members[0].read()

    def test_axes_that_are_not_of_classes(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.nii.gz", np.full((6, 5, 4, 7), 0.1))
        with pytest.raises(InputError, match="neither the first nor the last axis has the 3"):
            read_stacked(path, 3)
        with pytest.raises(InputError, match="unknown number of"):
            read_stacked(save(tmp_path / "b.nii.gz"), None)

    def test_one_map_of_one_class_needs_no_axis(self, tmp_path: Path) -> None:
        maps, geometry = read_stacked(save(tmp_path / "a.nii.gz"), 2)
        assert maps.shape == (2, *SHAPE) and geometry.shape == SHAPE
        np.testing.assert_allclose(maps[0], 0.75)


def totalsegmentator(folder: Path, grid: Any, name: str = "a") -> Path:
    folder.mkdir(exist_ok=True)
    maps = np.full((3, *SHAPE[::-1]), 1 / 3, np.float32)
    np.savez_compressed(folder / f"{name}.npz", probabilities=maps)
    (folder / f"{name}.pkl").write_bytes(pickle.dumps(grid))
    return folder


class TestTotalSegmentator:
    def test_half_of_a_case(self, tmp_path: Path) -> None:
        affine = {"nibabel_stuff": {"original_affine": np.diag([2.0, 2, 3, 1])}}
        totalsegmentator(tmp_path, affine)
        totalsegmentator(tmp_path, affine, "b")
        (tmp_path / "b.pkl").unlink()
        found = found_predictions([tmp_path], ALONE)
        assert set(found.cases) == {"a"} and "half written" in str(found.failures["b"])
        assert any("name it with --model" in note for note in found.notes)
        np.testing.assert_array_equal(
            found.cases["a"].members[0].read()[1].affine, np.diag([2, 2, 3, 1])
        )
        (tmp_path / "a.npz").unlink()
        with pytest.raises(InputError, match="no case with both of its files"):
            found_predictions([tmp_path], ALONE, "totalsegmentator")

    @pytest.mark.parametrize(
        "grid",
        [
            {"spacing": [1.0, 1.0, 1.0]},
            {"nibabel_stuff": {}},
            {"nibabel_stuff": {"original_affine": np.eye(3)}},
            {"nibabel_stuff": {"original_affine": np.full((4, 4), np.nan)}},
            {"sitk_stuff": {"direction": [1.0, 0.0], "spacing": [1], "origin": [0]}},
        ],
    )
    def test_a_grid_that_is_none(self, grid: Any, tmp_path: Path) -> None:
        found = found_predictions([totalsegmentator(tmp_path, grid)], ALONE)
        with pytest.raises(InputError, match="does not say where the maps lie"):
            found.cases["a"].members[0].read()


class TestSideBySide:
    def test_other_classes(self, tmp_path: Path) -> None:
        save(tmp_path / "x" / "a" / "liver.nii.gz")
        save(tmp_path / "y" / "a" / "spleen.nii.gz")
        with pytest.raises(InputError, match="has the classes background, spleen, but x has"):
            found_predictions([tmp_path / "x", tmp_path / "y"], ALONE)

    def test_a_case_without_a_partner(self, tmp_path: Path) -> None:
        for name in ("x/a/liver", "x/b/liver", "y/b/liver"):
            save(tmp_path / f"{name}.nii.gz")
        found = found_predictions([tmp_path / "x", tmp_path / "y"], ALONE)
        assert set(found.cases) == {"b"} and len(found.cases["b"].members) == 2
        assert "has no partner in y" in str(found.failures["a"])

    def test_no_case_in_common(self, tmp_path: Path) -> None:
        save(tmp_path / "x" / "a" / "liver.nii.gz")
        save(tmp_path / "y" / "b" / "liver.nii.gz")
        with pytest.raises(InputError, match="have no case in common"):
            found_predictions([tmp_path / "x", tmp_path / "y"], ALONE)

    def test_a_folder_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such folder"):
            found_predictions([tmp_path / "nowhere"], ALONE)


class TestClasses:
    NAMED = model_of_files(None, ("liver", "spleen"))

    def test_without_data_the_models_own_names(self) -> None:
        labels, channels = chosen_labels(self.NAMED, None, None, "here")
        assert labels == {0: "background", 1: "liver", 2: "spleen"}
        assert channels == {1: (1,), 2: (2,)}

    def test_others_than_the_data_sets(self) -> None:
        with pytest.raises(InputError, match="has the classes 1 liver, 2 spleen, but the data set"):
            chosen_labels(self.NAMED, {0: "background", 1: "kidney"}, None, "here")

    def test_names_that_the_data_set_does_not_have(self) -> None:
        labels = {0: "background", 1: "kidney"}
        with pytest.raises(UsageError, match="names liver, but the classes are kidney"):
            chosen_labels(self.NAMED, labels, {"liver": (1,)}, "here")

    def test_maps_that_nobody_names(self, tmp_path: Path) -> None:
        save(tmp_path / "a.nii.gz", np.full((*SHAPE, 3), 1 / 3))
        model = found_predictions([tmp_path], ALONE).model
        with pytest.raises(InputError, match="does not name all of its 2 classes"):
            chosen_labels(model, None, None, tmp_path)

    def test_what_is_no_list_of_classes(self) -> None:
        with pytest.raises(UsageError, match=r"must be NAME=NUMBER\[\+NUMBER\]"):
            parse_classes("liver")


class TestOptions:
    def test_images_of_two_places(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="Give --data or --images, not both"):
            adopt(tmp_path, tmp_path / "out", data="x", images=tmp_path)

    def test_a_folder_of_images(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such folder"):
            images_of_folder(tmp_path / "nowhere")
        with pytest.raises(InputError, match="has no image file"):
            images_of_folder(tmp_path)

    def test_a_guarantee(self, tmp_path: Path) -> None:
        model, labels = TestClasses.NAMED, {0: "background", 1: "liver", 2: "spleen"}
        assert calibration_of(None, model, labels, None) == (None, model)
        with pytest.raises(UsageError, match=r"must lie between 0 and 1, not be 1\.5"):
            calibration_of(None, model, labels, 1.5)
        with pytest.raises(UsageError, match="Add --calibration FILE"):
            calibration_of(None, model, labels, 0.9)
        with pytest.raises(InputError, match="no such file"):
            calibration_of(tmp_path / "none.json", model, labels, 0.9)
