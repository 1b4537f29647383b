"""What is written lies where the source lay: nibabel, SimpleITK and the header's bytes say so."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from medsegdiff.core.types import Geometry
from medsegdiff.writers.nifti import write_nifti

Affine = NDArray[np.float64]
RNG = np.random.default_rng(7)


def rotation(*degrees: float) -> Affine:
    """A rotation about x, then y, then z."""
    product = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        step = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        product = step @ product
    return product


def affine_of(linear: Affine, origin: tuple[float, float, float] = (-13.5, 22.25, 7.0)) -> Affine:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = linear, origin
    return affine


OBLIQUE = rotation(12, -33, 71)
AFFINES = {
    "identity": affine_of(np.eye(3)),
    "anisotropic": affine_of(np.diag([0.7, 0.9, 5.0])),
    "oblique": affine_of(OBLIQUE @ np.diag([0.8, 1.1, 3.0])),
    "turned twice": affine_of(rotation(12, -33, 0) @ np.diag([0.8, 1.1, 3.0])),
    "flipped": affine_of(np.diag([-1.0, -1.0, 2.0])),
    "left-handed": affine_of(OBLIQUE @ np.diag([-1.0, 1.5, 2.0])),
    "permuted": affine_of(np.eye(3)[[2, 0, 1]] @ np.diag([1.0, 2.0, 3.0])),
}
SHEARED = affine_of(np.array([[1.0, 0.3, 0.0], [0.0, 1.0, 0.0], [0.0, 0.2, 2.0]]))
CODES = {"both": (1, 1), "sform only": (2, 0), "qform only": (0, 1), "none": (0, 0)}


def source(path: Path, affine: Affine, codes: tuple[int, int], shape: tuple[int, ...]) -> Geometry:
    """Writes a source by nibabel alone and reads its geometry."""
    image = nib.Nifti1Image(RNG.normal(size=shape).astype(np.float32), None)
    header = image.header
    header.set_data_shape(shape)
    header.set_qform(affine, codes[1])
    header.set_sform(affine if codes[0] else np.zeros((4, 4)), codes[0])
    nib.save(image, path)
    read = nib.load(path)
    sform = (read.header.get_sform(), int(read.header["sform_code"]))
    qform = (read.header.get_qform(), int(read.header["qform_code"]))
    return Geometry(read.shape, read.affine, sform, qform, (path,))


def assert_same_space(path: Path, reference: Path) -> None:
    ours, theirs = nib.load(path), nib.load(reference)
    assert ours.shape[: len(theirs.shape)] == theirs.shape
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-5)
    for form in ("sform", "qform"):
        assert ours.header[f"{form}_code"] == theirs.header[f"{form}_code"]
        ours_form = getattr(ours.header, f"get_{form}")()
        np.testing.assert_allclose(ours_form, getattr(theirs.header, f"get_{form}")(), atol=1e-5)
    np.testing.assert_allclose(
        ours.header.get_zooms()[:2], theirs.header.get_zooms()[:2], rtol=1e-6
    )
    assert ours.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize("codes", CODES.values(), ids=CODES)
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_space_of_a_volume(tmp_path: Path, affine: Affine, codes: tuple[int, int]) -> None:
    geometry = source(tmp_path / "source.nii.gz", affine, codes, (5, 6, 4))
    labels = RNG.integers(0, 3, geometry.shape)
    write_nifti(tmp_path / "seg.nii.gz", labels, geometry, dtype="uint8")
    assert_same_space(tmp_path / "seg.nii.gz", tmp_path / "source.nii.gz")

    seg, src = (sitk.ReadImage(str(tmp_path / f"{n}.nii.gz")) for n in ("seg", "source"))
    assert seg.GetSize() == src.GetSize()
    np.testing.assert_allclose(seg.GetOrigin(), src.GetOrigin(), atol=1e-5)
    np.testing.assert_allclose(seg.GetSpacing(), src.GetSpacing(), atol=1e-5)
    np.testing.assert_allclose(seg.GetDirection(), src.GetDirection(), atol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(seg).T, labels)


def test_space_of_a_slice(tmp_path: Path) -> None:
    geometry = source(tmp_path / "source.nii.gz", AFFINES["anisotropic"], (1, 1), (5, 6))
    write_nifti(tmp_path / "mean.nii", RNG.random((5, 6)), geometry, dtype="float32")
    assert nib.load(tmp_path / "mean.nii").shape == (5, 6)
    assert_same_space(tmp_path / "mean.nii", tmp_path / "source.nii.gz")

    members = RNG.integers(0, 2, (5, 6, 3))
    write_nifti(tmp_path / "members.nii", members, geometry, dtype="uint8")
    read = nib.load(tmp_path / "members.nii")
    np.testing.assert_array_equal(read.get_fdata()[:, :, 0], members)
    np.testing.assert_allclose(read.affine, geometry.affine, atol=1e-6)


def test_members_are_the_fourth_axis(tmp_path: Path) -> None:
    geometry = source(tmp_path / "source.nii.gz", AFFINES["oblique"], (1, 1), (5, 6, 4))
    members = RNG.integers(0, 3, (5, 6, 4, 7))
    write_nifti(tmp_path / "members.nii.gz", members, geometry, dtype="uint8")
    assert_same_space(tmp_path / "members.nii.gz", tmp_path / "source.nii.gz")
    np.testing.assert_array_equal(nib.load(tmp_path / "members.nii.gz").dataobj, members)


def test_a_sheared_sform_and_its_other_qform_both_return(tmp_path: Path) -> None:
    sheared = source(tmp_path / "source.nii.gz", SHEARED, (1, 1), (5, 6, 4))
    assert sheared.sform is not None
    assert sheared.qform is not None
    assert not np.allclose(sheared.sform[0], sheared.qform[0], atol=1e-3)
    write_nifti(tmp_path / "seg.nii.gz", np.zeros((5, 6, 4)), sheared, dtype="uint8")
    assert_same_space(tmp_path / "seg.nii.gz", tmp_path / "source.nii.gz")


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_other_sources_get_both_forms(tmp_path: Path, affine: Affine) -> None:
    path = tmp_path / "seg.nii.gz"
    write_nifti(path, np.zeros((5, 6, 4)), Geometry((5, 6, 4), affine), dtype="uint8")
    header = nib.load(path).header
    assert (header["sform_code"], header["qform_code"]) == (1, 1)
    np.testing.assert_allclose(header.get_sform(), affine, atol=1e-5)
    np.testing.assert_allclose(header.get_qform(), affine, atol=1e-5)


def test_no_qform_is_claimed_for_a_sheared_other_source(tmp_path: Path) -> None:
    path = tmp_path / "seg.nii.gz"
    write_nifti(path, np.zeros((5, 6, 4)), Geometry((5, 6, 4), SHEARED), dtype="uint8")
    header = nib.load(path).header
    assert (header["sform_code"], header["qform_code"]) == (1, 0)
    np.testing.assert_allclose(nib.load(path).affine, SHEARED, atol=1e-5)


def test_header_bytes(tmp_path: Path) -> None:
    path = tmp_path / "seg.nii"
    write_nifti(path, np.zeros((2, 3, 4)), Geometry((2, 3, 4), np.eye(4)), dtype="uint8",
                description="label map of 16 members")  # fmt: skip
    raw = path.read_bytes()
    slope, inter = np.frombuffer(raw[112:120], "<f4")
    assert (slope, inter) == (1.0, 0.0)
    assert np.frombuffer(raw[70:72], "<i2")[0] == 2  # NIfTI's code of uint8
    assert raw[148:228].rstrip(b"\0") == b"label map of 16 members"


def test_labels_are_rounded_never_cut(tmp_path: Path) -> None:
    geometry = Geometry((1, 1, 3), np.eye(4))
    write_nifti(tmp_path / "a.nii", np.array([[[0.9996, 1.0004, 2.0]]]), geometry, dtype="uint8")
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii").dataobj, [[[1, 1, 2]]])
    for values, match in (([0.7, 1, 2], "whole"), ([0, 1, 256], "255"), ([-1, 0, 1], "255")):
        with pytest.raises(ValueError, match=match):
            write_nifti(tmp_path / "b.nii", np.array([[values]]), geometry, dtype="uint8")
    assert not (tmp_path / "b.nii").exists()


def test_limits_of_values(tmp_path: Path) -> None:
    geometry = Geometry((1, 1, 3), np.eye(4))
    path = tmp_path / "variance.nii"
    rounded = np.array([[[-1e-7, 0.1, 0.2500001]]])
    write_nifti(path, rounded, geometry, dtype="float32", limits=(0.0, 0.25))
    read = np.asarray(nib.load(path).dataobj)
    assert read.dtype == np.float32
    assert read.min() == 0.0
    assert read.max() == 0.25
    for wrong, match in ((0.3, "0.25"), (-0.1, "0.25"), (np.nan, "finite"), (np.inf, "finite")):
        with pytest.raises(ValueError, match=match):
            write_nifti(
                path, np.full((1, 1, 3), wrong), geometry, dtype="float32", limits=(0, 0.25)
            )


def test_limits_are_the_display_range(tmp_path: Path) -> None:
    """Also where the values do not reach them: a colour means the same in every case."""
    geometry, values = Geometry((1, 1, 3), np.eye(4)), np.array([[[0.0, 0.1, 0.125]]])
    bounded, plain = tmp_path / "variance.nii", tmp_path / "difference.nii"
    write_nifti(bounded, values, geometry, dtype="float32", limits=(0.0, 0.25))
    write_nifti(plain, values, geometry, dtype="float32")
    for path, (low, high) in ((bounded, (0.0, 0.25)), (plain, (0.0, 0.0))):
        # NIfTI-1: cal_max and cal_min at byte 124 and 128; both 0 mean that there is none
        assert np.frombuffer(path.read_bytes()[124:132], "<f4").tolist() == [high, low]


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 3), (6, 5, 4), (5, 6, 4, 2, 2)], ids=str)
def test_shape_is_checked(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(5, 6, 4\)"):
        write_nifti(
            tmp_path / "a.nii", np.zeros(shape), Geometry((5, 6, 4), np.eye(4)), dtype="uint8"
        )


def test_same_values_same_bytes(tmp_path: Path) -> None:
    geometry = Geometry((5, 6, 4), AFFINES["oblique"])
    mean = RNG.random((5, 6, 4))
    for name in ("a", "b"):
        write_nifti(tmp_path / name / "mean.nii.gz", mean, geometry, dtype="float32")
    assert (tmp_path / "a/mean.nii.gz").read_bytes() == (tmp_path / "b/mean.nii.gz").read_bytes()


def test_real_volume_returns_its_space(tmp_path: Path, shared_data: Path) -> None:
    path = next((shared_data / "hippocampus" / "imagesTr").glob("*.nii.gz"))
    image = nib.load(path)
    header = image.header
    forms = (
        (header.get_sform(), int(header["sform_code"])),
        (header.get_qform(), int(header["qform_code"])),
    )
    geometry = Geometry(image.shape, image.affine, *forms, (path,))
    write_nifti(tmp_path / "seg.nii.gz", np.ones(image.shape), geometry, dtype="uint8")
    assert_same_space(tmp_path / "seg.nii.gz", path)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_large_map_is_written_without_a_copy(
    tmp_path: Path, dtype: Literal["uint8", "float32"]
) -> None:
    geometry = Geometry((128, 128, 64), np.eye(4))
    array = np.zeros(geometry.shape, dtype=dtype)
    array[3, 5, 7] = 1
    tracemalloc.start()
    try:
        write_nifti(tmp_path / "a.nii", array, geometry, dtype=dtype, limits=(0.0, 1.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < array.nbytes / 2
    np.testing.assert_array_equal(nib.load(tmp_path / "a.nii").dataobj, array)


def test_the_description_is_cut_and_ascii(tmp_path: Path) -> None:
    path, geometry = tmp_path / "a.nii", Geometry((1, 1, 1), np.eye(4))
    write_nifti(path, np.ones((1, 1, 1)), geometry, dtype="uint8", description="ä" + "b" * 90)
    assert path.read_bytes()[148:228] == b"?" + b"b" * 78 + b"\0"
    write_nifti(path, np.ones((1, 1, 1)), geometry, dtype="uint8")
    assert path.read_bytes()[148:228] == bytes(80)


@pytest.mark.parametrize(
    ("values", "dtype", "limits", "told"),
    [
        ([0.002, 1, 2], "uint8", None, "a label map must hold whole numbers; got fractions"),
        ([0, 1, 255.002], "uint8", None, "array must lie in [0, 255]; got 0 to 255.002"),
        ([-0.002, 1, 2], "uint8", None, "array must lie in [0, 255]; got -0.002 to 2"),
        ([0, 1, 2], "uint8", (0, 1), "array must lie in [0, 1]; got 0 to 2"),
        ([0, np.nan, 2], "float32", None, "array must be finite; it holds NaN or infinity"),
        ([-np.inf, 0, 2], "uint8", None, "array must be finite; it holds NaN or infinity"),
    ],
)
def test_values_that_are_not_allowed_are_told(
    values: list[float],
    dtype: Literal["uint8", "float32"],
    limits: tuple[float, float] | None,
    told: str,
    tmp_path: Path,
) -> None:
    geometry = Geometry((1, 1, 3), np.eye(4))
    with pytest.raises(ValueError) as error:
        write_nifti(tmp_path / "a.nii", np.array([[values]]), geometry, dtype=dtype, limits=limits)
    assert str(error.value) == told


def test_values_that_rounding_moved_are_those_that_were_meant(tmp_path: Path) -> None:
    path, geometry = tmp_path / "a.nii", Geometry((1, 1, 3), np.eye(4))
    write_nifti(path, np.array([[[-0.0009, 254.9991, 255.0009]]]), geometry, dtype="uint8")
    np.testing.assert_array_equal(nib.load(path).dataobj, [[[0, 255, 255]]])
    write_nifti(path, np.array([[[-1e9, 0.5, 1e9]]]), geometry, dtype="float32")
    np.testing.assert_array_equal(nib.load(path).dataobj, np.array([[[-1e9, 0.5, 1e9]]], "f4"))
    empty = Geometry((0, 1, 3), np.eye(4))
    write_nifti(path, np.zeros((0, 1, 3)), empty, dtype="uint8")
    assert nib.load(path).shape == (0, 1, 3)


def test_a_wrong_shape_is_told_with_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        write_nifti(
            tmp_path / "a.nii", np.zeros((5, 7)), Geometry((5, 6), np.eye(4)), dtype="uint8"
        )
    assert str(error.value) == (
        "array must have shape (5, 6), or that and an axis of members; got (5, 7)"
    )
