"""nnU-Net's folders: what is found, how the maps lie, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import Manifest
from medsegdiff.other_models import nnunet_results
from medsegdiff.other_models.predicted import Known
from tests.other_models.fake_predictions import (
    LABELS,
    PLANS,
    TRAINER,
    deal,
    probabilities,
    write_description,
    write_nnunet_case,
    write_trainer,
)


def test_all_folds_of_a_trainer_are_found_each_case_with_its_network(
    known: Manifest, tmp_path: Path
) -> None:
    folds = deal(known, 3)
    trainer = write_trainer(tmp_path, folds)
    assert nnunet_results.recognises(trainer)
    found = nnunet_results.find(trainer, Known())
    assert set(found.cases) == {case.id for case in known.cases}
    for number, cases in enumerate(folds):
        assert {found.cases[case.id].network for case in cases} == {f"fold_{number}"}
    assert found.model.identity["trainer"] == TRAINER and not found.notes
    one = nnunet_results.find(trainer / "fold_1/validation", Known())
    assert set(one.cases) == {case.id for case in folds[1]}
    assert one.model == found.model


def test_maps_lie_on_the_grid_of_the_image(known: Manifest, tmp_path: Path) -> None:
    case = known.cases[0]
    expected = probabilities(case)
    assert len(set(expected.shape[1:])) > 1  # else a wrong order of the axes is not seen
    trainer = write_trainer(tmp_path, [[case]])
    maps, geometry = nnunet_results.find(trainer, Known()).cases[case.id].members[0].read()
    np.testing.assert_allclose(maps, expected, atol=2e-3)
    np.testing.assert_allclose(maps.sum(axis=0), 1.0, atol=1e-5)
    np.testing.assert_allclose(geometry.affine, nib.load(case.images[0]).affine, atol=1e-5)


@pytest.mark.parametrize("ending", [".png", ".nii.gz"])
def test_planes_lie_as_their_photograph_or_file(tmp_path: Path, ending: str) -> None:
    mask = np.zeros((9, 14), np.uint8)  # rows, columns
    mask[2:5, 3:11] = 1
    mask[6:8, 1:4] = 2
    rng = np.random.default_rng(0)
    maps = np.moveaxis(rng.dirichlet([1.0, 1.0, 1.0], mask.shape), -1, 0) * 0.4
    maps += 0.6 * np.stack([mask == k for k in range(3)])
    write_description(tmp_path, PLANS, file_ending=ending)
    np.savez_compressed(tmp_path / "a.npz", probabilities=maps[:, None].astype(np.float32))
    if ending == ".png":
        Image.fromarray(mask).save(tmp_path / "a.png")
    else:
        nib.save(nib.Nifti1Image(mask.T, np.eye(4)), tmp_path / "a.nii.gz")
    found, geometry = nnunet_results.find(tmp_path, Known()).cases["a"].members[0].read()
    assert found.shape == (3, 14, 9) and geometry.shape == (14, 9)
    np.testing.assert_allclose(found, maps.transpose(0, 2, 1), atol=1e-5)


def test_maps_that_nnunet_turned_to_ras_are_turned_back(known: Manifest, tmp_path: Path) -> None:
    case = known.cases[1]
    image = nib.load(case.images[0])
    flipped = image.affine @ np.diag([-1.0, 1.0, -1.0, 1.0])
    path = tmp_path / "flipped.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), flipped), path)
    expected = probabilities(case)
    write_description(tmp_path, PLANS | {"image_reader_writer": "NibabelIOWithReorient"})
    write_nnunet_case(tmp_path, replace(case, images=(path,)), expected, turned=True)
    maps, _ = nnunet_results.find(tmp_path, Known()).cases[case.id].members[0].read()
    np.testing.assert_allclose(maps, expected, atol=2e-3)


def test_a_flat_folder_does_not_say_its_trainer_and_the_user_can(
    known: Manifest, tmp_path: Path
) -> None:
    write_description(tmp_path, PLANS)
    write_nnunet_case(tmp_path, known.cases[0], probabilities(known.cases[0]))
    found = nnunet_results.find(tmp_path, Known())
    assert found.model.identity["trainer"] is None and "--model" in found.notes[0]
    assert found.cases[known.cases[0].id].network is None
    named = nnunet_results.find(tmp_path, Known(model=TRAINER))
    trainer = nnunet_results.find(write_trainer(tmp_path, [known.cases[1:2]]), Known())
    assert named.model.hash == trainer.model.hash != found.model.hash


def test_other_plans_are_another_model(known: Manifest, tmp_path: Path) -> None:
    folds = [known.cases[:1]]
    first = nnunet_results.find(write_trainer(tmp_path / "a", folds), Known())
    second = write_trainer(tmp_path / "b", folds, PLANS | {"patch_size": [8, 8, 8]})
    assert nnunet_results.find(second, Known()).model.hash != first.model.hash


def test_regions_become_classes(known: Manifest, tmp_path: Path) -> None:
    case = known.cases[0]
    whole = probabilities(case)
    regions = np.stack([whole[1] + whole[2], whole[2]])  # all of it, and the posterior part
    mask = np.where(regions[1] > 0.5, 2, np.where(regions[0] > 0.5, 1, 0))
    labels = {"background": 0, "all": [1, 2], "Posterior": [2]}
    write_description(tmp_path, PLANS, labels=labels, regions_class_order=[1, 2])
    write_nnunet_case(tmp_path, case, regions, mask)
    found = nnunet_results.find(tmp_path, Known())
    assert found.model.classes == ("background", None, "Posterior")
    maps, _ = found.cases[case.id].members[0].read()
    np.testing.assert_allclose(maps, whole, atol=3e-3)


@pytest.mark.parametrize("left", [".npz", ".nii.gz"])
def test_a_half_written_case_fails_alone(known: Manifest, tmp_path: Path, left: str) -> None:
    first, second = known.cases[:2]
    trainer = write_trainer(tmp_path, [[first, second]])
    (trainer / "fold_0/validation" / f"{first.id}{left}").unlink()
    found = nnunet_results.find(trainer, Known())
    assert set(found.cases) == {second.id}
    with pytest.raises(InputError, match=f"{first.id}.*is missing"):
        raise found.failures[first.id]


def test_a_fold_that_was_validated_without_probabilities_is_told(
    known: Manifest, tmp_path: Path
) -> None:
    trainer = write_trainer(tmp_path, [known.cases[:1], known.cases[1:3]])
    for file in (trainer / "fold_1/validation").glob("*.[np][pk][zl]"):
        file.unlink()
    found = nnunet_results.find(trainer, Known())
    assert set(found.failures) == {case.id for case in known.cases[1:3]}
    assert all("--npz" in str(error) for error in found.failures.values())


def test_a_folder_without_probabilities_says_how_to_save_them(
    known: Manifest, tmp_path: Path
) -> None:
    trainer = write_trainer(tmp_path, [known.cases[:1]])
    for file in (trainer / "fold_0/validation").glob("*.[np][pk][zl]"):
        file.unlink()
    with pytest.raises(InputError, match="--npz"):
        nnunet_results.find(trainer, Known())


def _read(folder: Path, case: str) -> None:
    nnunet_results.find(folder, Known()).cases[case].members[0].read()


def test_what_is_no_probability_is_refused(known: Manifest, tmp_path: Path) -> None:
    case = known.cases[0]
    maps = probabilities(case)
    write_description(tmp_path, PLANS)
    write_nnunet_case(tmp_path, case, maps * 0.5)
    with pytest.raises(InputError, match="must sum to 1"):
        _read(tmp_path, case.id)
    write_nnunet_case(tmp_path, case, np.log(maps + 1e-3))
    with pytest.raises(InputError, match=r"in \[0, 1\].*not logits"):
        _read(tmp_path, case.id)
    write_nnunet_case(tmp_path, case, maps[:2])
    with pytest.raises(InputError, match=r"2 maps, but dataset\.json names 3"):
        _read(tmp_path, case.id)
    (tmp_path / f"{case.id}.npz").write_bytes(b"PK\x03\x04 half")
    with pytest.raises(InputError, match="cannot be read as an npz file"):
        _read(tmp_path, case.id)


def test_a_mask_of_another_prediction_is_refused(known: Manifest, tmp_path: Path) -> None:
    case = known.cases[0]
    maps = probabilities(case)
    write_description(tmp_path, PLANS)
    write_nnunet_case(tmp_path, case, maps, np.roll(maps.argmax(axis=0), 3, axis=1))
    with pytest.raises(InputError, match="gives other labels than"):
        _read(tmp_path, case.id)
    write_nnunet_case(tmp_path, case, maps[:, :-1])
    image = nib.load(case.images[0])
    mask = nib.Nifti1Image(maps.argmax(axis=0).astype(np.uint8), image.affine)
    nib.save(mask, tmp_path / f"{case.id}.nii.gz")
    with pytest.raises(InputError, match="not of one image"):
        _read(tmp_path, case.id)


@pytest.mark.parametrize(
    ("described", "rule"),
    [
        ({"labels": {"background": 0, "a": [1, 2], "b": [2, 3]}}, "regions_class_order"),
        (
            {"labels": {"background": 0, "a": [1, 2], "b": [2, 3]}, "regions_class_order": [1, 3]},
            "without one holding the other",
        ),
        ({"labels": ["a", "b"]}, "'labels' cannot be read"),
    ],
)
def test_labels_that_cannot_be_used(
    tmp_path: Path, described: dict[str, object], rule: str
) -> None:
    write_description(tmp_path, PLANS, **described)
    with pytest.raises(InputError, match=rule):
        nnunet_results.find(tmp_path, Known())


def test_a_damaged_description_is_named(known: Manifest, tmp_path: Path) -> None:
    trainer = write_trainer(tmp_path, [known.cases[:1]])
    (trainer / "plans.json").write_text(json.dumps(LABELS)[:20], encoding="utf-8")
    with pytest.raises(InputError, match=r"plans\.json: cannot be read as JSON"):
        nnunet_results.find(trainer, Known())
