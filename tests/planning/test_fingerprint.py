"""What is measured of a data set, on images whose measures are known."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from medsegdiff.data.manifest import load_manifest
from medsegdiff.planning.fingerprint import Fingerprint, fingerprint_of

SHAPE = (20, 16, 12)


def boxes(*places: tuple[slice, ...]) -> NDArray[np.uint8]:
    """Labels with a box of each class."""
    label = np.zeros(SHAPE, np.uint8)
    for value, place in enumerate(places, start=1):
        label[place] = value
    return label


def measured(folder: Path, labels: list[NDArray[np.uint8]], turned: bool = False) -> Fingerprint:
    """The fingerprint of images of 1 x 2 x 3 mm with these labels."""
    training = []
    image = nib.Nifti1Image
    for number, label in enumerate(labels):
        values = np.where(label > 0, 50.0, 10.0).astype(np.float32)
        affine = np.diag([1.0, 2.0, 3.0, 1.0])
        pair = [image(values, affine), image(label, affine)]
        if turned:  # the same places in the world
            pair = [one.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]])) for one in pair]
        names = [f"{number}_{kind}.nii.gz" for kind in ("image", "label")]
        for one, name in zip(pair, names, strict=True):
            nib.save(one, folder / name)
        training.append(dict(zip(("image", "label"), names, strict=True)))
    classes = {"0": "background", "1": "left_box", "2": "right_box"}
    described = {"name": "boxes", "labels": classes, "modality": {"0": "MRI"}, "training": training}
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return fingerprint_of(load_manifest(folder / "dataset.json"))


LOW, HIGH = (slice(2, 6), slice(4, 8), slice(3, 9)), (slice(12, 18), slice(4, 8), slice(3, 9))


@pytest.mark.parametrize("turned", [False, True])
def test_sizes_and_greys_are_those_of_the_boxes(tmp_path: Path, turned: bool) -> None:
    found = measured(tmp_path, [boxes(LOW, HIGH)] * 4, turned)
    assert found.dims == 3 and found.shape == found.largest == SHAPE
    np.testing.assert_allclose(found.spacing, [1, 2, 3], rtol=1e-5)
    np.testing.assert_allclose(found.extent, [16, 4, 6], rtol=1e-5)
    assert found.share == pytest.approx((4 + 6) * 4 * 6 / np.prod(SHAPE))
    assert found.present == {1: 4, 2: 4} and found.sides
    assert found.ordered == (True, False, False)  # one class lies left of the other
    np.testing.assert_allclose(found.intensity, [(50, 0, 50, 50)])
    assert found.darkest == 10


def test_cases_without_a_structure_do_not_make_it_small(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "all").mkdir()
    whole, empty = boxes(LOW, HIGH), np.zeros(SHAPE, np.uint8)
    found = measured(tmp_path / "some", [whole, whole, whole, empty])
    every = measured(tmp_path / "all", [whole] * 4)
    assert found.present == {1: 3, 2: 3} and found.cases == 4
    assert found.thickness == every.thickness > 0
    np.testing.assert_allclose(found.extent, every.extent)


def test_nothing_that_is_marked(tmp_path: Path) -> None:
    found = measured(tmp_path, [np.zeros(SHAPE, np.uint8)] * 2)
    assert found.present == {1: 0, 2: 0} and found.thickness == 0 and found.share == 0
    assert found.ordered == (False, False, False)
    np.testing.assert_array_equal(found.extent, 0)
