"""NIfTI headers at the edge of what they may say, and what a reader makes of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.images import read_image
from medsegdiff.data.readers.nifti_reader import read_nifti, read_nifti_geometry

AFFINE = np.array([[0.0, -2, 0, 5], [1, 0, 0, -7], [0, 0, 3, 11], [0, 0, 0, 1]])
KINDS = pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape or (7, 6, 8)).astype(np.float32)


def written(path: Path, image: nib.Nifti1Image, **fields: object) -> Path:
    """The image, with fields of its header as they are, whatever nibabel thinks of them."""
    nib.save(image, path)
    with path.open("rb") as stream:
        header = image.header_class.from_fileobj(stream, check=False)
    for name, value in fields.items():
        header[name] = value
    content = bytearray(path.read_bytes())
    content[: len(header.binaryblock)] = header.binaryblock
    path.write_bytes(content)
    return path


@KINDS
@pytest.mark.parametrize("excess", [1e-6, 1e-4])
def test_a_quaternion_longer_than_one_by_rounding(
    kind: type[nib.Nifti1Image], excess: float, tmp_path: Path
) -> None:
    image = kind(values(), np.diag([-1.0, -1, 1, 1]))
    image.set_sform(None, 0)
    image.set_qform(np.diag([-1.0, -1, 1, 1]), 1)
    path = written(tmp_path / "a.nii", image, quatern_d=np.sqrt(1 + excess))
    array, geometry = read_nifti(path)
    np.testing.assert_array_equal(array, values())
    np.testing.assert_allclose(geometry.affine, np.diag([-1.0, -1, 1, 1]), atol=1e-6)
    assert geometry.qform is not None and geometry.qform[1] == 1 and geometry.notes == ()
    np.testing.assert_allclose(geometry.qform[0], geometry.affine)


@KINDS
def test_a_quaternion_that_is_none_is_refused(kind: type[nib.Nifti1Image], tmp_path: Path) -> None:
    image = kind(values(), np.eye(4))
    image.set_sform(None, 0)
    image.set_qform(np.eye(4), 1)
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_nifti(written(tmp_path / "a.nii", image, quatern_b=1.2))


def test_without_codes_the_orientation_is_a_guess(tmp_path: Path) -> None:
    image = nib.Nifti1Image(values(), AFFINE)
    path = written(tmp_path / "a.nii", image, sform_code=0, qform_code=0)
    for geometry in (read_nifti(path)[1], read_nifti_geometry(path)):
        (note,) = geometry.notes
        assert "neither sform nor qform: the orientation is a guess" in note
        assert nib.aff2axcodes(geometry.affine) == ("L", "A", "S")


@pytest.mark.parametrize(("codes", "count"), [((0, 0), 2), ((0, 1), 1), ((1, 0), 0)])
def test_voxel_sizes_of_zero_are_a_guess(
    codes: tuple[int, int], count: int, tmp_path: Path
) -> None:
    """Unless the sform says them."""
    image = nib.Nifti1Image(values(), np.eye(4))
    pixdim = np.array([1, 0, 0, 0, 1, 1, 1, 1], np.float32)
    path = written(
        tmp_path / "a.nii", image, sform_code=codes[0], qform_code=codes[1], pixdim=pixdim
    )
    _, geometry = read_nifti(path)
    assert geometry.spacing == pytest.approx((1, 1, 1)) and len(geometry.notes) == count
    assert all("guess" in note for note in geometry.notes)
    assert ("taken as 1 mm" in " ".join(geometry.notes)) == (count > 0)


def test_a_leading_axis_of_one(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(values()[None], AFFINE), path)
    for geometry in (read_nifti_geometry(path), read_nifti(path)[1]):
        assert geometry.shape == (7, 6, 8) and "first axis has length 1" in geometry.notes[0]
        np.testing.assert_array_equal(geometry.affine, AFFINE)
    np.testing.assert_array_equal(read_nifti(path)[0], values())


@pytest.mark.parametrize("shape", [(1, 7, 6), (1, 7, 6, 4), (1, 7, 6, 1)])
def test_a_sagittal_slice_has_none(shape: tuple[int, ...], tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(values(*shape), AFFINE), tmp_path / "a.nii")
    array, geometry = read_nifti(tmp_path / "a.nii")
    assert geometry.shape == (1, 7, 6) and array.shape[:3] == (1, 7, 6) and geometry.notes == ()


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image_is_told(value: int, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), value, np.int16), AFFINE), tmp_path / "a.nii")
    (note,) = read_image(tmp_path / "a.nii")[1].notes
    assert note == f"all its values are {value}: there is no image in it"
    assert read_image(tmp_path / "a.nii", label=True)[1].notes == ()


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif"])
def test_git_lfs_pointers_and_broken_links_are_named(ending: str, tmp_path: Path) -> None:
    pointer, link = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InputError, match=r"Git LFS pointer .* git lfs pull"):
        read_image(pointer)
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a link to a file that is not there"):
        read_image(link)


class TestRemedies:
    """Each is followed, and works."""

    def test_colours_as_channels(self, tmp_path: Path) -> None:
        colours = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
        colours["G"] = 3
        path = tmp_path / "a.nii"
        nib.save(nib.Nifti1Image(colours, AFFINE), path)
        with pytest.raises(InputError, match="Store colours or complex parts as separate channels"):
            read_nifti(path)
        nib.save(nib.Nifti1Image(np.stack([colours[c] for c in "RGB"], axis=-1), AFFINE), path)
        assert read_nifti(path)[0][..., 1].max() == 3

    def test_one_volume_of_many_axes(self, tmp_path: Path) -> None:
        path = tmp_path / "a.nii"
        array = values(5, 5, 5, 2, 3)
        nib.save(nib.Nifti1Image(array, AFFINE), path)
        with pytest.raises(InputError, match="Give one volume of it"):
            read_nifti(path)
        nib.save(nib.Nifti1Image(array[..., 0, 0], AFFINE), path)
        np.testing.assert_array_equal(read_nifti(path)[0], array[..., 0, 0])

    def test_millimetres(self, tmp_path: Path) -> None:
        image = nib.Nifti1Image(values(), np.diag([1e-3, 1e-3, 1e-3, 1]))
        image.header.set_xyzt_units("meter")
        nib.save(image, tmp_path / "a.nii")
        with pytest.raises(InputError, match="with voxel sizes and unit in millimetres"):
            read_nifti(tmp_path / "a.nii")
        image = nib.Nifti1Image(values(), np.eye(4))
        image.header.set_xyzt_units("mm")
        nib.save(image, tmp_path / "a.nii")
        assert read_nifti(tmp_path / "a.nii")[1].spacing == (1, 1, 1)

    def test_an_affine(self, tmp_path: Path) -> None:
        image = nib.Nifti1Image(values(), AFFINE)
        path = written(tmp_path / "a.nii", image, srow_x=0, srow_y=0, srow_z=0)
        with pytest.raises(InputError, match="Save it with an affine of its voxel sizes"):
            read_nifti(path)
        nib.save(nib.Nifti1Image(values(), AFFINE), path)
        np.testing.assert_array_equal(read_nifti(path)[1].affine, AFFINE)


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("length", [0, 4, 100, 347])
def test_less_than_a_header_is_refused(length: int, ending: str, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(values(), AFFINE), tmp_path / "a.nii")
    content = (tmp_path / "a.nii").read_bytes()[:length]
    path = tmp_path / f"b.{ending}"
    path.write_bytes(gzip.compress(content) if ending == "nii.gz" else content)
    for read in (read_nifti, read_nifti_geometry):
        with pytest.raises(InputError, match="cannot be read as an image"):
            read(path)


@KINDS
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_values_that_would_begin_within_the_header(
    kind: type[nib.Nifti1Image], name: str, tmp_path: Path
) -> None:
    """nibabel takes an offset of 0 at its word, and gives the header's bytes as intensities."""
    plain, path = written(tmp_path / "a.nii", kind(values(), AFFINE), vox_offset=0), tmp_path / name
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    np.testing.assert_array_equal(read_nifti(path)[0], values())
    np.testing.assert_allclose(read_nifti_geometry(path).affine, AFFINE)


@KINDS
@pytest.mark.parametrize(("entry", "value"), [(1, -0.8), (0, -3.2), (0, -1.0001)])
def test_negative_voxel_sizes_where_the_qform_counts(
    kind: type[nib.Nifti1Image], entry: int, value: float, tmp_path: Path
) -> None:
    """nibabel drops the sign, ITK mirrors the image: left and right would be a guess."""
    image = kind(values(), np.diag([-0.8, 1.3, 2.5, 1.0]))
    image.set_qform(image.affine, 1)
    sizes = image.header["pixdim"].copy()
    sizes[entry] = value
    _, geometry = read_nifti(written(tmp_path / "a.nii", image, pixdim=sizes))
    np.testing.assert_allclose(geometry.affine, image.affine, rtol=1e-6)  # by its sform
    image.set_sform(None, 0)
    path = written(tmp_path / "b.nii", image, pixdim=sizes)
    for read in (read_nifti, read_nifti_geometry):
        with pytest.raises(InputError, match="negative voxel sizes"):
            read(path)


@pytest.mark.parametrize(("shift", "told"), [(0.4, False), (0.6, True), (30.0, True)])
def test_contradicting_forms_are_told(tmp_path: Path, shift: float, told: bool) -> None:
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4))
    moved = np.eye(4)
    moved[1, 3] = shift
    image.set_sform(np.eye(4), 1)
    image.set_qform(moved, 1)
    nib.save(image, tmp_path / "a.nii.gz")
    geometry = read_nifti_geometry(tmp_path / "a.nii.gz")
    assert np.array_equal(geometry.affine, np.eye(4))
    assert [f"place a corner {shift:.1f} mm apart" in note for note in geometry.notes] == [
        True
    ] * told
