"""The benchmark of whole heads: what it makes of a head keeps places and labels together."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from benchmarks.whole_scans import SIDES, TURN, Head, changed, changes, summary

SHAPE = (40, 50, 36)
AFFINE = np.array([[-1.0, 0, 0, 20], [0, 1, 0, -30], [0, 0, 1, -10], [0, 0, 0, 1]])


def head() -> Head:
    values = np.zeros(SHAPE, dtype=np.float32)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for value, x in zip(SIDES.values(), (10, 25), strict=True):
        part = (slice(x, x + 6), slice(20, 32), slice(12, 20))
        labels[part], values[part] = value, 100.0
    return Head("head", nib.Nifti1Image(values, AFFINE), nib.Nifti1Image(labels, AFFINE))


def centre(image: nib.Nifti1Image, value: int) -> np.ndarray:
    index = np.argwhere(np.asarray(image.dataobj) == value).mean(axis=0)
    return np.asarray(image.affine[:3, :3] @ index + image.affine[:3, 3])


@pytest.mark.parametrize("name", changes())
def test_labels_stay_where_the_image_is(name: str) -> None:
    given = head()
    found = changed(given, changes()[name])
    assert given.labels is not None and found.labels is not None
    assert found.image.shape == found.labels.shape
    turn = TURN[:3, :3] if name.startswith("turned") else np.eye(3)
    for value in SIDES.values():
        before, after = centre(given.labels, value), centre(found.labels, value)
        assert np.linalg.norm(turn @ before - after) < 1.0
    bright = np.asarray(found.image.dataobj) > 50
    marked = np.asarray(found.labels.dataobj) > 0
    assert 2 * (bright & marked).sum() / (bright.sum() + marked.sum()) > 0.8


def test_a_failed_head_is_counted() -> None:
    good = {"head": "a", "variant": "as it is", "pieces": 2, "located": True, "elsewhere": 0}
    good |= {"dice": 0.8, "volume_ratio": 1.1, "seconds": {"total": 3.0}, "peak_memory_mb": 900}
    found = summary([good, {"head": "b", "variant": "as it is", "failed": "no"}])["as it is"]
    assert (found["heads"], found["failed"], found["two_pieces"]) == (2, 1, 1)
    assert found["dice"] == 0.8 and found["located"] == "1 of 1"
    assert found["dice_carried"] is None  # nothing was brought to another grid
