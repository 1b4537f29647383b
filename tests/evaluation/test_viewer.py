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
from medsegdiff.viz.pictures import COLOURS, grey_range
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


def test_the_code_is_read_from_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "nilearn" / "_assets" / "js" / "niivue.umd.js"
    script.parent.mkdir(parents=True)
    script.write_bytes(b"code" * 100)
    asked: Any = []

    class Spec:
        origin = str(tmp_path / "nilearn" / "__init__.py")

    monkeypatch.setattr(viewer, "find_spec", lambda name: asked.append(name) or Spec())
    niivue.cache_clear()
    try:
        packed = niivue()
        assert packed is not None and len(packed) < 100
        assert gzip.decompress(base64.b64decode(packed)) == b"code" * 100
        Spec.origin = None  # type: ignore[assignment]
        niivue.cache_clear()
        assert niivue() is None and asked == ["nilearn"] * 2
    finally:
        niivue.cache_clear()


def test_colours_and_the_scale_of_variance_follow_the_classes(make_case_view: MakeCaseView) -> None:
    seg, _ = masks()
    names = {value: f"class {value}" for value in range(1, len(COLOURS) + 2)}
    told = volumes(make_case_view(seg), names)
    assert told["labels"] == [
        {"value": value, "name": name, "colour": COLOURS[(value - 1) % len(COLOURS)]}
        for value, name in names.items()
    ]
    assert told["variance_top"] == 0.5 and volumes(make_case_view(seg), {1: "a"})[
        "variance_top"
    ] == pytest.approx(0.25)
    assert told["thinned"] == 1


def test_grey_values_and_differences_are_bytes(make_case_view: MakeCaseView) -> None:
    seg, reference = masks()
    image = np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)
    image[0, 0, 0], image[0, 0, 1], image[0, 0, 2] = np.nan, 1e6, -1e6
    variance = np.zeros(SHAPE, np.float32)
    variance[1, 1, 1], variance[2, 2, 2] = 0.1, 9.0
    shown = make_case_view(seg, reference=reference, image=image, variance=variance)
    told = volumes(shown, {1: "a"})
    found = read(told["image"])
    assert found.get_data_dtype() == np.uint8 and found.get_fdata()[0, 0, 1] == 255.0
    low, high = grey_range(image, 3)
    expected = np.clip((np.nan_to_num(image) - low) / (high - low) * 255, 0, 255)
    np.testing.assert_array_equal(found.get_fdata(), np.floor(expected))
    np.testing.assert_array_equal(
        read(told["differences"]).get_fdata(), differences(seg, reference)
    )
    stored = np.asarray(read(told["variance"]).dataobj.get_unscaled())
    assert stored[1, 1, 1] == round(0.1 / 0.25 * 255) and stored[2, 2, 2] == 255


def test_a_small_volume_is_embedded_whole(make_case_view: MakeCaseView) -> None:
    empty = np.zeros(SHAPE, np.uint8)
    assert read(volumes(make_case_view(empty), {1: "a"})["mask"]).shape == SHAPE


@pytest.mark.parametrize("marked", [True, False])
def test_a_large_volume_is_cut_to_the_marks_and_a_margin(
    marked: bool, make_case_view: MakeCaseView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "VOXELS", 14 * 12 * 10 - 1)
    monkeypatch.setattr(viewer, "_MARGIN_MM", 3.0)
    seg, other = np.zeros((2, *SHAPE), np.uint8)
    if marked:
        seg[5:7, 4:6, 8], other[8, 5, 5] = 1, 1
    shown = make_case_view(
        seg, annotations=[other], reference=seg, affine=np.diag([1.0, 2.0, 4.0, 1.0])
    )
    part, step = viewer._part(shown)
    if marked:
        # 3, 2 and 1 voxels around what is marked, up to the border
        assert part == (slice(2, 12, 1), slice(2, 8, 1), slice(4, 10, 1)) and step == 1
        told = volumes(shown, {1: "a"})
        assert read(told["mask"]).affine[:3, 3].tolist() == [2.0, 4.0, 16.0]
    else:
        assert part == (slice(0, 14, 2), slice(0, 12, 2), slice(0, 10, 2)) and step == 2
