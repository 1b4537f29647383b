"""What the viewer is given: volumes in the same place with the same values, and its code."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medsegdiff.evaluation import viewer
from medsegdiff.evaluation.viewer import differences, is_volume, niivue, volumes
from tests.evaluation.conftest import MakeCaseView

AFFINE = np.array([[0.0, -2, 0, 30], [1, 0, 0.1, -7], [0, 0, 3, 11], [0, 0, 0, 1]])
SHAPE = (14, 12, 10)


def read(packed: str) -> Any:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(packed)))


def masks() -> tuple[np.ndarray, np.ndarray]:
    seg, reference = np.zeros((2, *SHAPE), np.uint8)
    seg[3:8, 3:9, 2:8], reference[4:8, 3:9, 2:8] = 1, 1
    seg[8:11, 3:9, 2:7], reference[8:11, 3:9, 2:8] = 2, 1
    return seg, reference


def test_volumes_are_where_and_what_they_were(make_case_view: MakeCaseView) -> None:
    seg, reference = masks()
    variance = np.random.default_rng(0).random(SHAPE).astype(np.float32) / 4
    shown = make_case_view(seg, reference=reference, affine=AFFINE, variance=variance)
    told = volumes(shown, {1: "Head", 2: "Tail"})
    json.dumps(told)
    for name in ("image", "mask", "reference", "differences", "variance"):
        np.testing.assert_allclose(read(told[name]).affine, AFFINE, atol=1e-5)
    np.testing.assert_array_equal(read(told["mask"]).get_fdata(), seg)
    np.testing.assert_array_equal(read(told["reference"]).get_fdata(), reference)
    step = told["variance_top"] / 255
    np.testing.assert_allclose(read(told["variance"]).get_fdata(), variance, atol=0.51 * step)
    image = read(told["image"]).get_fdata()
    assert image.min() == 0 and image.max() == 255
    assert np.corrcoef(image.ravel(), shown.image.ravel())[0, 1] > 0.99
    assert [label["name"] for label in told["labels"]] == ["Head", "Tail"]


def test_the_viewer_starts_where_the_errors_are(make_case_view: MakeCaseView) -> None:
    seg, _ = masks()
    reference = seg.copy()
    reference[9, 5, 4] = 0
    told = volumes(make_case_view(seg, reference=reference, affine=AFFINE), {1: "a", 2: "b"})
    np.testing.assert_allclose(told["spot"], (AFFINE @ [9, 5, 4, 1])[:3], atol=1e-3)
    assert "variance" not in told


@pytest.mark.parametrize("limit", [1000, 60])
def test_large_volumes_are_cropped_and_thinned_in_place(
    make_case_view: MakeCaseView, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(viewer, "VOXELS", limit)
    monkeypatch.setattr(viewer, "_MARGIN_MM", 2.0)
    seg = np.zeros(SHAPE, np.uint8)
    seg[4:10, 4:9, 3:8] = 1
    told = volumes(make_case_view(seg, affine=AFFINE), {1: "a"})
    mask = read(told["mask"])
    assert mask.get_fdata().size <= limit
    assert (told["thinned"] > 1) == (limit == 60)
    for voxel in np.argwhere(mask.get_fdata() >= 0):
        own = np.linalg.inv(AFFINE) @ mask.affine @ [*voxel, 1]
        place = tuple(own[:3].round().astype(int))
        np.testing.assert_allclose(own[:3], place, atol=1e-4)
        assert mask.get_fdata()[tuple(voxel)] == seg[place]


def test_differences_are_of_three_kinds() -> None:
    seg, reference = masks()
    found = differences(seg, reference)
    np.testing.assert_array_equal(found == 1, (reference > 0) & (seg == 0))
    np.testing.assert_array_equal(found == 2, (reference == 0) & (seg > 0))
    np.testing.assert_array_equal(found == 3, (reference > 0) & (seg > 0) & (reference != seg))


def test_planes_and_photographs_are_no_volumes(make_case_view: MakeCaseView) -> None:
    assert is_volume(make_case_view(np.zeros(SHAPE, np.uint8)))
    assert not is_volume(make_case_view(np.zeros(SHAPE[:2], np.uint8)))
    assert not is_volume(make_case_view(np.zeros((9, 9, 2), np.uint8)))


def test_the_code_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("nilearn", minversion="0.14", reason="the viewer's code is in nilearn")
    packed = niivue()
    assert packed is not None
    code = gzip.decompress(base64.b64decode(packed)).decode()
    assert "Niivue" in code and len(packed) < 1_500_000


@pytest.mark.parametrize("found", ["nothing", "an older one"])
def test_without_the_package_there_is_no_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: str
) -> None:
    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(viewer, "find_spec", lambda name: None if found == "nothing" else Spec())
    niivue.cache_clear()
    try:
        assert niivue() is None
    finally:
        niivue.cache_clear()
