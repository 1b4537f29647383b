"""Which layout a folder has, and what is read of it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import Case, Manifest
from medsegdiff.other_models.predicted import Known, Predictions
from medsegdiff.other_models.prediction_layouts import found_predictions
from tests.other_models.fake_predictions import deal, probabilities, write_trainer

CLASSES = ("anterior", "posterior")


def _known(manifest: Manifest) -> Known:
    return Known(frozenset(case.id for case in manifest.cases), CLASSES, 3)


def _save(path: Path, values: NDArray[np.float32], case: Case) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, nib.load(case.images[0]).affine), path)


def _flat(folder: Path, case: Case, maps: NDArray[np.float32]) -> None:
    for slug, own in zip(CLASSES, maps[1:], strict=True):
        _save(folder / f"{case.id}_prob_{slug}.nii.gz", own, case)


def _nested(folder: Path, case: Case, maps: NDArray[np.float32]) -> None:
    for slug, own in zip(CLASSES, maps[1:], strict=True):
        _save(folder / case.id / f"{slug}.nii.gz", own, case)


def _last(folder: Path, case: Case, maps: NDArray[np.float32]) -> None:
    _save(folder / f"{case.id}.nii.gz", np.moveaxis(maps, 0, -1), case)


def _first(folder: Path, case: Case, maps: NDArray[np.float32]) -> None:
    _save(folder / f"{case.id}_softmax.nii.gz", maps, case)


def _without_background(folder: Path, case: Case, maps: NDArray[np.float32]) -> None:
    _save(folder / f"{case.id}.nii.gz", np.moveaxis(maps[1:], 0, -1), case)


def _maps_of(found: Predictions, case: Case) -> NDArray[np.float32]:
    maps, geometry = found.cases[case.id].members[0].read()
    image = nib.load(case.images[0])
    assert geometry.shape == image.shape
    np.testing.assert_allclose(geometry.affine, image.affine, atol=1e-5)
    return maps


@pytest.mark.parametrize("write", [_flat, _nested, _last, _first, _without_background])
def test_maps_in_image_files(
    known: Manifest,
    tmp_path: Path,
    write: Callable[[Path, Case, NDArray[np.float32]], None],
) -> None:
    for case in known.cases[:3]:
        write(tmp_path, case, probabilities(case))
    found = found_predictions([tmp_path], _known(known))
    assert set(found.cases) == {case.id for case in known.cases[:3]} and not found.failures
    for case in known.cases[:3]:
        np.testing.assert_allclose(_maps_of(found, case), probabilities(case), atol=1e-5)


def test_a_case_without_one_of_the_classes_fails_alone(known: Manifest, tmp_path: Path) -> None:
    first, second = known.cases[:2]
    for case in (first, second):
        _flat(tmp_path, case, probabilities(case))
    (tmp_path / f"{first.id}_prob_posterior.nii.gz").unlink()
    found = found_predictions([tmp_path], _known(known))
    assert set(found.cases) == {second.id}
    assert "no map of posterior" in str(found.failures[first.id])


def test_maps_that_overlap_are_refused(known: Manifest, tmp_path: Path) -> None:
    case = known.cases[0]
    _flat(tmp_path, case, np.full_like(probabilities(case), 0.8))
    found = found_predictions([tmp_path], _known(known))
    with pytest.raises(InputError, match=r"sum to 1\.6 over the classes"):
        found.cases[case.id].members[0].read()


@pytest.mark.parametrize("beside", [True, False])
def test_masks_of_several_models_are_members(known: Manifest, tmp_path: Path, beside: bool) -> None:
    case, other = known.cases[:2]
    masks = [probabilities(case, seed).argmax(axis=0).astype(np.uint8) for seed in range(3)]
    for number, mask in enumerate(masks):
        _save(tmp_path / f"model_{number}" / f"{case.id}.nii.gz", mask, case)
    _save(tmp_path / "model_0" / f"{other.id}.nii.gz", np.zeros((4, 4, 4), np.uint8), other)
    folders = sorted(tmp_path.iterdir()) if beside else [tmp_path]
    found = found_predictions(folders, _known(known))
    assert set(found.cases) == {case.id}
    assert "no partner in model_1, model_2" in str(found.failures[other.id])
    members = found.cases[case.id].members
    for member, mask in zip(members, masks, strict=True):
        maps, _ = member.read()
        assert np.array_equal(maps.argmax(axis=0), mask) and set(np.unique(maps)) == {0.0, 1.0}


def test_masks_of_one_model_say_nothing_of_probability(known: Manifest, tmp_path: Path) -> None:
    case = known.cases[0]
    _save(tmp_path / f"{case.id}.nii.gz", probabilities(case).argmax(axis=0).astype(np.uint8), case)
    with pytest.raises(InputError, match="say nothing of probability"):
        found_predictions([tmp_path], _known(known))


def test_masks_with_labels_that_the_data_set_does_not_name(known: Manifest, tmp_path: Path) -> None:
    case = known.cases[0]
    for name in "ab":
        mask = np.full(nib.load(case.images[0]).shape, 7, np.uint8)
        _save(tmp_path / name / f"{case.id}.nii.gz", mask, case)
    found = found_predictions([tmp_path / "a", tmp_path / "b"], _known(known))
    with pytest.raises(InputError, match=r"values \[7\] that the data set does not name"):
        found.cases[case.id].members[0].read()


def test_folds_that_predicted_the_same_cases_are_members_of_one_model(
    known: Manifest, tmp_path: Path
) -> None:
    trainers = [write_trainer(tmp_path / name, deal(known, 1)) for name in "ab"]
    found = found_predictions(trainers, _known(known))
    alone = found_predictions(trainers[:1], _known(known))
    assert found.model.identity == alone.model.identity
    assert all(len(case.members) == 2 for case in found.cases.values())


def test_totalsegmentators_grid_is_in_the_pickle(known: Manifest, tmp_path: Path) -> None:
    case = known.cases[0]
    maps = probabilities(case)
    itk: dict[str, tuple[float, ...]] = {"spacing": (1.5, 1.5, 1.5), "origin": (10.0, -20.0, 5.0)}
    itk["direction"] = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)
    stored = maps.transpose(0, 3, 2, 1).astype(np.float16)
    np.savez_compressed(tmp_path / f"{case.id}.npz", probabilities=stored)
    (tmp_path / f"{case.id}.pkl").write_bytes(pickle.dumps({"sitk_stuff": itk}))
    found = found_predictions([tmp_path], Known(model="liver_vessels"))
    assert found.resampled and found.model.classes == ("background", None, None)
    read, geometry = found.cases[case.id].members[0].read()
    np.testing.assert_allclose(read, maps, atol=2e-3)
    # LPS to RAS turns the first two axes of direction and origin
    expected = np.array([[1.5, 0, 0, -10.0], [0, 1.5, 0, 20.0], [0, 0, 1.5, 5.0], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(geometry.affine, expected)


@pytest.mark.parametrize(
    ("name", "rule"), [("nowhere", "no such folder"), (".", "no predictions of a known layout")]
)
def test_what_is_no_folder_of_predictions(tmp_path: Path, name: str, rule: str) -> None:
    (tmp_path / "notes.txt").write_text("nothing", encoding="utf-8")
    with pytest.raises(InputError, match=rule):
        found_predictions([tmp_path / name], Known())
