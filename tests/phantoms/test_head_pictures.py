"""Label maps of heads, and pictures drawn from them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.phantoms.head_labels import (
    HEAD_NAMES,
    PAIRED,
    HeadLabels,
    read_head_labels,
    tissue_of,
)
from medsegdiff.phantoms.head_pictures import LEAST, head_picture


def _blocks() -> np.ndarray:
    """(80, 90, 100) in LPS: skin, brain, and in it a block of each structure, right ones first."""
    labels = np.zeros((80, 90, 100), dtype=np.int16)
    labels[2:-2, 2:-2, 2:-2] = 507
    labels[8:-8, 8:-8, 8:-8] = 3
    for place, (_, left, right) in enumerate(PAIRED.values()):
        row, level = 14 + 30 * (place % 2), 14 + 18 * (place // 2)
        labels[12:36, row : row + 24, level : level + 14] = right[0]
        labels[44:68, row : row + 24, level : level + 14] = left[0]
    labels[36:44, 30:60, 30:60] = 16
    return labels


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> HeadLabels:
    file = tmp_path_factory.mktemp("heads") / "head.nii.gz"
    nib.save(nib.Nifti1Image(_blocks(), np.diag([-1.0, -1.0, 1.0, 1.0])), file)
    return read_head_labels(file)


def test_a_label_map_is_read_alike_however_it_is_stored(head: HeadLabels, tmp_path: Path) -> None:
    turned = np.diag([1.0, -1.0, -1.0, 1.0])  # to the right, to the back, down
    file = tmp_path / "turned.nii.gz"
    nib.save(nib.Nifti1Image(_blocks()[::-1, :, ::-1].astype(np.float32), turned), file)
    again = read_head_labels(file)
    assert again.numbers == head.numbers and np.array_equal(again.labels, head.labels)
    assert head.labels.shape == (76, 86, 96)
    left, right = (head.voxels[f"{side} thalamus"][:, 0].mean() for side in ("left", "right"))
    assert left > right  # the first axis points to the left
    assert len(head.voxels["thalamus"]) == sum(
        len(head.voxels[f"{side} thalamus"]) for side in ("left", "right")
    )
    assert "fourth ventricle" not in head.voxels


def test_maps_without_freesurfers_numbers_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 48, dtype=np.int16), np.eye(4)), file)
    with pytest.raises(InputError, match="hippocampus"):
        read_head_labels(file)
    file.write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read"):
        read_head_labels(file)


def test_tissues_of_numbers() -> None:
    assert [tissue_of(n) for n in (0, 2, 7, 8, 10, 43, 507)] == [
        "air", "white matter", "white matter", "grey matter", "deep grey matter", "fluid",
        "surroundings",
    ]  # fmt: skip


def test_pictures_depend_on_seed_and_number_alone(head: HeadLabels) -> None:
    first, again, other = (head_picture([head], 1, n) for n in (3, 3, 4))
    assert np.array_equal(first.image, again.image) and first.unclear == again.unclear
    assert not np.array_equal(first.image, other.image)


def test_masks_are_of_what_is_named_and_shown(head: HeadLabels) -> None:
    drawn = [head_picture([head], 0, number) for number in range(60)]
    planes, contrasts = {one.plane for one in drawn}, {one.contrast for one in drawn}
    assert len(planes) == 3 and len(contrasts) == 3
    for one in drawn:
        assert one.image.shape == (64, 64) and np.abs(one.image).max() <= 1.0
        assert set(one.masks) | one.unclear <= set(HEAD_NAMES)
        assert not one.unclear & set(one.masks)
        for name, mask in one.masks.items():
            assert mask.mean() >= LEAST
            both = [
                one.masks[f"{s} {name}"] for s in ("left", "right") if f"{s} {name}" in one.masks
            ]
            assert all((half & ~mask).sum() == 0 for half in both)
        if one.plane == "sagittal":
            assert "left thalamus" in one.unclear and "left thalamus" not in one.masks
    there = np.mean(
        [["thalamus" in one.masks, "hippocampus" in one.masks] for one in drawn], axis=0
    )
    assert (there > 0.1).all() and (there < 0.9).all()


def test_the_right_side_is_at_the_pictures_left(head: HeadLabels) -> None:
    seen = 0
    for number in range(60):
        masks = head_picture([head], 0, number).masks
        if {"left caudate", "right caudate"} <= set(masks):
            columns = [np.nonzero(masks[f"{s} caudate"])[1].mean() for s in ("left", "right")]
            assert columns[0] > columns[1]
            seen += 1
    assert seen > 5


def test_erased_structures_leave_no_trace(head: HeadLabels) -> None:
    """Pictures of much of the head may lack one of a pair."""
    drawn = [head_picture([head], 5, number) for number in range(120)]
    full = [one for one in drawn if len(one.masks) > 6 and one.plane != "sagittal"]
    lone = [one for one in full if ("left putamen" in one.masks) != ("right putamen" in one.masks)]
    assert full and lone


def test_real_label_maps_give_many_names(shared_data: Path) -> None:
    head = read_head_labels(shared_data / "synthseg_labels" / "training_seg_01.nii.gz")
    assert set(head.voxels) == set(HEAD_NAMES)
    names = {name for number in range(30) for name in head_picture([head], 0, number).masks}
    assert len(names) > 20
