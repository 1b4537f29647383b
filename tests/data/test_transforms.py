from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    CropForegroundd,
    DivisiblePadd,
    EnsureTyped,
    NormalizeIntensityd,
    Orientationd,
    Spacingd,
)
from PIL import Image

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import UNKNOWN_CLASS
from medsegdiff.data.images import read_geometry
from medsegdiff.data.transforms import LeaveOutUnknownd, LoadCased, load, restore

MakeNifti = Callable[..., Path]


def oblique(
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), angle: float = 0.3
) -> np.ndarray:
    """A rotation about two axes, scaled, moved: voxel -> RAS+ mm."""
    c, s = np.cos(angle), np.sin(angle)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag(spacing)
    affine[:3, 3] = (-31.5, 12.25, 7.0)
    return affine


FLIPPED = np.array([[0, -2.0, 0, 5], [0, 0, 1.0, -3], [-1.5, 0, 0, 2], [0, 0, 0, 1]])
AFFINES = {"identity": np.eye(4), "oblique": oblique(), "flipped and permuted": FLIPPED}


def edit_header(file: Path, **fields: Any) -> None:
    """Put values into a NIfTI header that nibabel would not write."""
    header = nib.load(file).header
    for name, value in fields.items():
        header[name] = value
    compressed = file.suffix == ".gz"
    content = gzip.decompress(file.read_bytes()) if compressed else file.read_bytes()
    content = header.binaryblock + content[header.sizeof_hdr :]
    file.write_bytes(gzip.compress(content) if compressed else content)


def smooth(shape: tuple[int, ...]) -> np.ndarray:
    """A smooth bump, so that resampling loses little."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    return np.exp(-2 * sum(axis**2 for axis in axes)).astype(np.float32)


class TestLoadCased:
    @pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())
    def test_image_is_what_nibabel_says(self, make_nifti: MakeNifti, affine: np.ndarray) -> None:
        file = make_nifti(affine=affine)
        item = LoadCased()({"case": "a", "image": [str(file)], "other": 1})
        assert isinstance(item["image"], MetaTensor)
        assert item["image"].dtype == torch.float32
        np.testing.assert_array_equal(item["image"][0], nib.load(file).get_fdata())
        np.testing.assert_array_equal(item["image"].affine, nib.load(file).affine)
        np.testing.assert_array_equal(item["geometry"].affine, nib.load(file).affine)
        assert (item["case"], item["other"]) == ("a", 1)

    def test_label_is_kept_as_it_is(self, make_nifti: MakeNifti) -> None:
        array = np.random.default_rng(0).integers(0, 3, (8, 9, 7)).astype(np.float32)
        files = {"image": [make_nifti()], "label": [make_nifti("l.nii.gz", array=array)]}
        item = LoadCased(labels={"0": "background", "1": "a", "2": "b"})(files)
        assert item["label"].dtype == torch.uint8
        np.testing.assert_array_equal(item["label"][0], array)

    def test_raters_in_files_and_in_the_last_axis_agree(self, make_nifti: MakeNifti) -> None:
        array = np.random.default_rng(0).integers(0, 2, (8, 9, 7, 3)).astype(np.uint8)
        stacked = [make_nifti("all.nii.gz", array=array)]
        single = [make_nifti(f"{i}.nii.gz", array=array[..., i]) for i in range(3)]
        image = [make_nifti()]
        one = LoadCased(raters=3)({"image": image, "label": stacked})["label"]
        other = LoadCased(raters=3)({"image": image, "label": single})["label"]
        assert one.shape == (3, 8, 9, 7)
        assert torch.equal(one, other)

    def test_channels_in_files_and_in_the_last_axis_agree(self, make_nifti: MakeNifti) -> None:
        array = np.random.default_rng(0).normal(size=(8, 9, 7, 2)).astype(np.float32)
        stacked = [make_nifti("all.nii.gz", array=array)]
        single = [make_nifti(f"{i}.nii.gz", array=array[..., i]) for i in range(2)]
        one = LoadCased(channels=2)({"image": stacked})["image"]
        other = LoadCased(channels=2)({"image": single})["image"]
        assert one.shape == (2, 8, 9, 7)
        assert torch.equal(one, other)

    @pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1)])
    def test_plane(self, make_nifti: MakeNifti, shape: tuple[int, ...]) -> None:
        label = [make_nifti("l.nii.gz", array=np.ones(shape, np.uint8))]
        item = LoadCased(2)({"image": [make_nifti(shape=shape)], "label": label})
        assert item["image"].shape == (1, 8, 9)
        assert item["label"].shape == (1, 8, 9)
        assert item["geometry"].shape == shape

    def test_volume_for_two_dimensions_stays_a_volume(self, make_nifti: MakeNifti) -> None:
        assert LoadCased(2)({"image": [make_nifti()]})["image"].shape == (1, 8, 9, 7)

    def test_trailing_axes_of_one_are_dropped(self, make_nifti: MakeNifti) -> None:
        item = LoadCased()({"image": [make_nifti(shape=(8, 9, 7, 1))]})
        assert item["image"].shape == (1, 8, 9, 7)
        assert item["geometry"].shape == (8, 9, 7)

    def test_photograph_with_two_annotations(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)  # rows, columns, colours
        Image.fromarray(pixels).save(tmp_path / "eye.png")
        masks = rng.integers(0, 2, (2, 5, 6)).astype(bool)
        labels = []
        for i, mask in enumerate(masks):
            labels.append(str(tmp_path / f"{i}.png"))
            Image.fromarray(mask).save(labels[-1])
        files = {"image": str(tmp_path / "eye.png"), "label": labels}
        item = LoadCased(2, channels=3, labels=[0, 1], raters=2)(files)
        np.testing.assert_array_equal(item["image"], pixels.transpose(2, 1, 0))
        np.testing.assert_array_equal(item["label"], masks.transpose(0, 2, 1))

    @pytest.mark.parametrize(
        ("axes", "expected"),
        [
            ((0, 1), [[-2.0, 0.0], [0.0, 3.0]]),
            ((1, 0), [[0.0, 3.0], [-2.0, 0.0]]),
            ((2, 0), [[2.0, 0.0], [0.0, 3.0]]),
        ],
        ids=["axial", "axial, transposed", "sagittal"],
    )
    def test_affine_of_a_plane_has_two_axes(
        self, make_nifti: MakeNifti, axes: tuple[int, int], expected: list[list[float]]
    ) -> None:
        affine = np.zeros((4, 4))
        affine[axes[0], 0], affine[axes[1], 1] = -2.0, 3.0
        affine[3 - sum(axes), 2] = affine[3, 3] = 1.0
        item = LoadCased(2)({"image": [make_nifti(shape=(8, 9), affine=affine)]})
        np.testing.assert_allclose(item["image"].affine[:2, :2], expected)


class TestBadInput:
    """One rule each: one clear line that names the file."""

    @staticmethod
    def fails(rule: str, file: Path, loader: LoadCased | None = None, **item: Any) -> None:
        item = {"image": [file]} | item
        with pytest.raises(InputError, match=rule) as caught:
            load(Compose([loader or LoadCased()]), item)
        assert str(file) in caught.value.subject
        assert "\n" not in str(caught.value)

    def test_missing_file(self, tmp_path: Path) -> None:
        self.fails("no such file", tmp_path / "a.nii.gz")

    @pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.png", "a.dcm", "a.txt"])
    def test_text_file(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("this is not an image\n" * 30)
        self.fails("cannot be read as an image|not a DICOM image", tmp_path / name)

    def test_text_file_compressed(self, tmp_path: Path) -> None:
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(b"this is not an image\n" * 30))
        self.fails("cannot be read as an image", tmp_path / "a.nii.gz")

    @pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.png"])
    def test_empty_file(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).touch()
        self.fails("cannot be read as an image", tmp_path / name)

    @pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
    def test_truncated_file(self, make_nifti: MakeNifti, name: str) -> None:
        file = make_nifti(name, shape=(30, 30, 30))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        self.fails("cannot be read as an image", file)

    def test_bit_that_fell_over(self, make_nifti: MakeNifti) -> None:
        content = bytearray(gzip.compress(make_nifti("a.nii").read_bytes(), compresslevel=0))
        content[-100] ^= 1
        file = make_nifti()
        file.write_bytes(content)
        self.fails(r"cannot be read as an image \(CRC", file)

    @pytest.mark.parametrize("count", [1, 4, 8])
    def test_checksum_that_is_cut_off(self, make_nifti: MakeNifti, count: int) -> None:
        file = make_nifti()
        file.write_bytes(file.read_bytes()[:-count])
        self.fails("cannot be read as an image", file)

    @pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
    def test_header_that_announces_too_much(self, make_nifti: MakeNifti, name: str) -> None:
        file = make_nifti(name)
        edit_header(file, dim=[3, 32000, 32000, 32000, 1, 1, 1, 1])
        self.fails("too short for the 131072000000000 bytes", file)

    def test_memory_that_does_not_suffice(
        self, make_nifti: MakeNifti, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def exhausted(*_: Any) -> None:
            raise MemoryError

        monkeypatch.setattr("medsegdiff.data.readers.nifti_reader._values", exhausted)
        self.fails("cannot be read as an image .MemoryError", make_nifti())

    @pytest.mark.parametrize(("unit", "name"), [("meter", "metres"), ("micron", "micrometres")])
    def test_other_units_than_millimetres(
        self, make_nifti: MakeNifti, unit: str, name: str
    ) -> None:
        file = make_nifti()
        image = nib.load(file)
        image.header.set_xyzt_units(unit, "sec")
        nib.save(image, file)
        self.fails(f"lengths in {name}", file)

    def test_surface(self, tmp_path: Path) -> None:
        axes = nib.cifti2.ScalarAxis(["a"]), nib.cifti2.SeriesAxis(0, 1, 4)
        nib.save(nib.Cifti2Image(np.ones((1, 4), np.float32), axes), tmp_path / "a.nii")
        self.fails("is no volume but Cifti2Image", tmp_path / "a.nii")

    def test_name_that_no_system_takes(self, tmp_path: Path) -> None:
        self.fails("cannot be read .File name too long", tmp_path / f"{'x' * 300}.nii")

    def test_folder_without_images(self, tmp_path: Path) -> None:
        self.fails("holds no DICOM image", tmp_path)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, make_nifti: MakeNifti, value: float) -> None:
        array = np.ones((4, 4, 4), np.float32)
        array[1, 2, 3] = value
        self.fails("1 of 64 values are NaN", make_nifti(array=array))

    @pytest.mark.parametrize(("value", "dtype"), [(-3e38, np.float32), (1e300, np.float64)])
    def test_values_too_large_to_calculate_with(
        self, make_nifti: MakeNifti, value: float, dtype: Any
    ) -> None:
        array = np.ones((4, 4, 4), dtype)
        array[1, 2, 3] = value
        self.fails("1 of 64 values are NaN, infinite or beyond", make_nifti(array=array))

    def test_complex(self, make_nifti: MakeNifti) -> None:
        file = make_nifti(array=np.ones((4, 4, 4), np.complex64))
        self.fails("one real number per voxel", file)

    def test_four_axes(self, make_nifti: MakeNifti) -> None:
        self.fails(r"has 4 axes \(4, 5, 6, 20\)", make_nifti(shape=(4, 5, 6, 20)))

    def test_five_axes(self, make_nifti: MakeNifti) -> None:
        self.fails("has 5 axes", make_nifti(shape=(4, 5, 6, 2, 3)))

    def test_plane_for_three_dimensions(self, make_nifti: MakeNifti) -> None:
        self.fails("a volume is needed", make_nifti(shape=(4, 5)))

    def test_too_many_channels(self, make_nifti: MakeNifti) -> None:
        file = make_nifti("a.nii")
        self.fails("has 2 channels, but 1 are", file, image=[file, make_nifti("b.nii")])

    def test_too_few_channels(self, make_nifti: MakeNifti) -> None:
        self.fails("has 1 channels, but 2 are needed", make_nifti(), LoadCased(channels=2))

    def test_remedy_for_channels_is_right_with_and_without_a_description(
        self, make_nifti: MakeNifti
    ) -> None:
        with pytest.raises(InputError) as caught:
            LoadCased(channels=2)({"image": [make_nifti()]})
        assert "in the last axis of one file" in caught.value.remedy
        assert "dataset.json" in caught.value.remedy

    def test_channels_in_one_file_do_not_fit(self, make_nifti: MakeNifti) -> None:
        file = make_nifti(shape=(4, 5, 6, 3))
        self.fails("has 3 channels, but 2 are needed", file, LoadCased(channels=2))

    def test_channels_of_different_shape(self, make_nifti: MakeNifti) -> None:
        file = make_nifti("b.nii", shape=(8, 9, 6))
        image = [make_nifti("a.nii"), file]
        self.fails("the first channel has", file, LoadCased(channels=2), image=image)

    def test_channels_in_different_places(self, make_nifti: MakeNifti) -> None:
        file = make_nifti("b.nii", affine=np.diag([1, 1, 1.2, 1]))
        image = [make_nifti("a.nii"), file]
        self.fails("from the first channel", file, LoadCased(channels=2), image=image)

    def test_empty_volume(self, tmp_path: Path) -> None:
        file = tmp_path / "a.nii"
        nib.save(nib.Nifti1Image(np.zeros((4, 0, 4), np.float32), np.eye(4)), file)
        self.fails("holds no image", file)

    def test_singular_affine(self, make_nifti: MakeNifti) -> None:
        file = make_nifti("a.nii")
        edit_header(file, srow_z=0.0)
        self.fails("its affine is singular", file)

    def test_quaternion_that_is_none(self, make_nifti: MakeNifti) -> None:
        file = make_nifti()
        edit_header(file, sform_code=0, qform_code=1, quatern_b=0.9, quatern_c=0.9)
        self.fails("cannot be read as an image", file)

    def test_label_is_missing(self, make_nifti: MakeNifti, tmp_path: Path) -> None:
        file = tmp_path / "label.nii"
        self.fails("no such file", file, image=[make_nifti()], label=[file])

    def test_label_of_another_shape(self, make_nifti: MakeNifti) -> None:
        file = make_nifti("l.nii", array=np.ones((8, 9, 6), np.uint8))
        self.fails(r"label has shape \(8, 9, 6\)", file, image=[make_nifti()], label=[file])

    def test_label_with_undeclared_raters(self, make_nifti: MakeNifti) -> None:
        file = make_nifti("l.nii", array=np.ones((8, 9, 7, 4), np.uint8))
        self.fails("label has shape", file, image=[make_nifti()], label=[file])

    def test_label_in_another_place(self, make_nifti: MakeNifti) -> None:
        array = np.ones((8, 9, 7), np.uint8)
        file = make_nifti("l.nii", array=array, affine=oblique())
        self.fails("voxels from its image", file, image=[make_nifti()], label=[file])

    def test_rounding_of_the_label_affine_is_no_error(self, make_nifti: MakeNifti) -> None:
        affine = oblique() + 1e-4 * np.eye(4, k=1)
        label = [make_nifti("l.nii", array=np.ones((8, 9, 7), np.uint8), affine=affine)]
        LoadCased()({"image": [make_nifti(affine=oblique())], "label": label})

    def test_unknown_label_values(self, make_nifti: MakeNifti) -> None:
        array = np.arange(8 * 9 * 7, dtype=np.uint8).reshape(8, 9, 7) % 4
        file = make_nifti("l.nii", array=array)
        loader = LoadCased(labels=[0, 1])
        self.fails(
            r"unknown label values \[2, 3\]", file, loader, image=[make_nifti()], label=[file]
        )

    @pytest.mark.parametrize("value", [-1, 256])
    def test_label_values_beyond_a_byte(self, make_nifti: MakeNifti, value: int) -> None:
        file = make_nifti("l.nii", array=np.full((8, 9, 7), value, np.int16))
        self.fails("unknown label values", file, image=[make_nifti()], label=[file])

    @pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
    def test_label_values_that_are_not_whole(self, make_nifti: MakeNifti, value: float) -> None:
        array = np.zeros((8, 9, 7), np.float32)
        array[0, 0, 0] = value
        file = make_nifti("l.nii", array=array)
        self.fails("must be whole numbers", file, image=[make_nifti()], label=[file])

    def test_other_errors_are_not_hidden(self) -> None:
        def fault(item: Any) -> Any:
            raise TypeError("a fault of the chain")

        with pytest.raises(RuntimeError):
            load(Compose([fault]), {})

    def test_error_survives_a_worker_process(self) -> None:
        error = InputError("a", "b", "c")
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


class TestRestore:
    @staticmethod
    def there_and_back(
        file: Path, *transforms: Any, dims: int = 3, mode: Any = "bilinear"
    ) -> tuple[np.ndarray, MetaTensor]:
        chain = Compose([LoadCased(dims), *transforms])
        item = load(chain, {"image": [str(file)]})
        return restore(item["image"].as_tensor(), item["image"], chain, mode=mode), item["image"]

    @pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())
    def test_orientation_is_exact(self, make_nifti: MakeNifti, affine: np.ndarray) -> None:
        file = make_nifti(affine=affine)
        back, _ = self.there_and_back(file, Orientationd("image", axcodes="RAS", labels=None))
        np.testing.assert_array_equal(back[0], nib.load(file).get_fdata())

    def test_orientation_really_turns(self, make_nifti: MakeNifti) -> None:
        turn = Orientationd("image", axcodes="RAS", labels=None)
        _, image = self.there_and_back(make_nifti(affine=FLIPPED), turn)
        assert nib.aff2axcodes(image.affine.numpy()) == ("R", "A", "S")
        assert image.shape == (1, 9, 7, 8)

    @pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())
    def test_padding_and_cropping(self, make_nifti: MakeNifti, affine: np.ndarray) -> None:
        array = np.zeros((11, 13, 9), np.float32)
        array[3:8, 2:9, 4:7] = np.random.default_rng(1).uniform(1, 2, (5, 7, 3))
        back, image = self.there_and_back(
            make_nifti(array=array, affine=affine),
            Orientationd("image", axcodes="RAS", labels=None),
            CropForegroundd("image", source_key="image"),
            DivisiblePadd("image", 8),
            EnsureTyped("image"),
        )
        assert image.shape == (1, 8, 8, 8)
        np.testing.assert_array_equal(back[0], array)

    def test_outside_the_crop_is_zero(self, make_nifti: MakeNifti) -> None:
        crop = CenterSpatialCropd("image", (4, 4, 4))
        back, _ = self.there_and_back(make_nifti(array=np.ones((8, 9, 7), np.float32)), crop)
        assert back.shape == (1, 8, 9, 7)
        assert back.sum() == 64

    @pytest.mark.parametrize("affine", [oblique((0.7, 1.9, 3.1)), np.diag([2.0, 0.5, 1.3, 1])])
    def test_spacing_keeps_the_shape_and_nearly_the_values(
        self, make_nifti: MakeNifti, affine: np.ndarray
    ) -> None:
        array = smooth((25, 31, 19))
        back, image = self.there_and_back(
            make_nifti(array=array, affine=affine),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", (1.0, 1.0, 1.0), mode="bilinear"),
            NormalizeIntensityd("image", subtrahend=0.0, divisor=1.0),
            DivisiblePadd("image", 4),
        )
        assert image.shape[1:] != array.shape
        assert back[0].shape == array.shape
        assert np.abs(back[0] - array).max() < 0.06

    def test_world_positions_are_kept(self, make_nifti: MakeNifti) -> None:
        """A map painted by world position in network space has it in the input's space too."""
        affine = oblique((0.8, 1.6, 2.4))
        file = make_nifti(shape=(24, 15, 11), affine=affine)
        chain = Compose(
            [
                LoadCased(),
                Orientationd("image", axcodes="RAS", labels=None),
                Spacingd("image", (1.0, 1.0, 1.0), mode="bilinear"),
            ]
        )
        image = load(chain, {"image": [file]})["image"]

        def positions(shape: Any, affine: np.ndarray) -> np.ndarray:
            voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
            return (
                np.einsum("ij,j...->i...", affine[:3, :3], voxels) + affine[:3, 3, None, None, None]
            )

        painted = positions(image.shape[1:], image.affine.numpy())
        back = restore(torch.from_numpy(painted), image, chain)
        inside = (slice(None), *(slice(3, -3),) * 3)
        expected = positions((24, 15, 11), affine)
        np.testing.assert_allclose(back[inside], expected[inside], atol=1e-3)

    def test_nearest_invents_no_values(self, make_nifti: MakeNifti) -> None:
        array = np.random.default_rng(0).integers(0, 2, (12, 10, 8)).astype(np.float32) * 7
        file = make_nifti(array=array, affine=np.diag([1.0, 1.0, 2.0, 1.0]))
        spacing = Spacingd("image", (1.0, 1.0, 1.0), mode="nearest")
        back, _ = self.there_and_back(file, spacing, mode="nearest")
        assert set(np.unique(back)) == {0.0, 7.0}

    def test_cubic_image_does_not_make_cubic_maps(self, make_nifti: MakeNifti) -> None:
        file = make_nifti(shape=(12, 10, 8), affine=np.diag([1.0, 1.0, 2.0, 1.0]))
        chain = Compose([LoadCased(), Spacingd("image", (1.0, 1.0, 1.0), mode=3)])
        image = load(chain, {"image": [file]})["image"]
        maps = torch.from_numpy(np.random.default_rng(0).integers(0, 2, image.shape))
        back = restore(maps, image, chain)
        assert back.min() >= 0.0
        assert back.max() <= 1.0

    def test_many_maps_of_an_image_with_label(self, make_nifti: MakeNifti) -> None:
        label = make_nifti("l.nii", array=np.ones((8, 9, 7), np.uint8), affine=FLIPPED)
        chain = Compose([LoadCased(), Orientationd(["image", "label"], "RAS", labels=None)])
        files = {"image": [make_nifti(affine=FLIPPED)], "label": [label]}
        image = load(chain, files)["image"]
        before = [dict(operation) for operation in image.applied_operations]
        back = restore(torch.rand(5, *image.shape[1:]), image, chain)
        assert back.shape == (5, 8, 9, 7)
        assert back.dtype == np.float32
        assert len(image.applied_operations) == len(before)

    @pytest.mark.parametrize("shape", [(24, 18), (24, 18, 1)])
    @pytest.mark.parametrize("axes", [(0, 1), (1, 0), (2, 0)])
    def test_planes(
        self, make_nifti: MakeNifti, shape: tuple[int, ...], axes: tuple[int, int]
    ) -> None:
        affine = np.zeros((4, 4))
        affine[axes[0], 0], affine[axes[1], 1] = -2.0, 0.6
        affine[3 - sum(axes), 2] = affine[3, 3] = 1.0
        file = make_nifti(array=smooth((24, 18)).reshape(shape), affine=affine)
        turn = Orientationd("image", axcodes="RA", labels=None)
        back, _ = self.there_and_back(file, turn, DivisiblePadd("image", 16), dims=2)
        np.testing.assert_array_equal(back[0], nib.load(file).get_fdata())
        spacing = Spacingd("image", (1.0, 1.0), mode="bilinear")
        back, image = self.there_and_back(file, turn, spacing, dims=2)
        assert image.shape[1:] != (24, 18)
        assert back[0].shape == shape
        assert np.abs(back[0] - nib.load(file).get_fdata()).max() < 0.06

    def test_volume_of_planes(self, make_nifti: MakeNifti) -> None:
        file = make_nifti(affine=FLIPPED)
        turn = Orientationd("image", axcodes="RAS", labels=None)
        back, _ = self.there_and_back(file, turn, dims=2)
        np.testing.assert_array_equal(back[0], nib.load(file).get_fdata())

    def test_maps_of_another_grid(self, make_nifti: MakeNifti) -> None:
        chain = Compose([LoadCased()])
        image = load(chain, {"image": [make_nifti()]})["image"]
        with pytest.raises(ValueError, match="not on the grid"):
            restore(torch.zeros(1, 4, 4, 4), image, chain)


class TestGeometry:
    @pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())
    def test_agrees_with_simpleitk(self, make_nifti: MakeNifti, affine: np.ndarray) -> None:
        file = make_nifti(affine=affine)
        geometry, image = read_geometry(file), sitk.ReadImage(str(file))
        assert geometry.shape == image.GetSize()
        np.testing.assert_allclose(geometry.spacing, image.GetSpacing(), rtol=1e-5)
        corner = tuple(size - 1 for size in geometry.shape)
        lps = image.TransformIndexToPhysicalPoint(corner)
        ras = geometry.affine @ [*corner, 1]
        np.testing.assert_allclose(ras[:3], np.array(lps) * [-1, -1, 1], atol=1e-4)

    @pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (4, 2), (0, 0)])
    def test_forms_and_codes(self, tmp_path: Path, sform: int, qform: int) -> None:
        image = nib.Nifti1Image(np.ones((4, 5, 6), np.float32), oblique())
        image.set_qform(oblique(), qform)
        image.set_sform(oblique(), sform)
        nib.save(image, tmp_path / "a.nii")
        geometry, reference = read_geometry(tmp_path / "a.nii"), nib.load(tmp_path / "a.nii")
        assert geometry.sform is not None
        assert geometry.qform is not None
        assert (geometry.sform[1], geometry.qform[1]) == (sform, qform)
        np.testing.assert_array_equal(geometry.affine, reference.affine)
        np.testing.assert_array_equal(geometry.sform[0], reference.get_sform())
        np.testing.assert_array_equal(geometry.qform[0], reference.get_qform())
        assert geometry.sources == (tmp_path / "a.nii",)

    @pytest.mark.parametrize("quaternion", [0.9, np.nan])
    def test_sform_stands_beside_a_quaternion_that_is_none(
        self, make_nifti: MakeNifti, quaternion: float
    ) -> None:
        file = make_nifti(affine=oblique())
        edit_header(file, qform_code=1, quatern_b=quaternion, quatern_c=0.9)
        geometry = read_geometry(file)
        assert geometry.qform is not None
        assert geometry.qform[1] == 0
        np.testing.assert_allclose(geometry.affine, oblique(), atol=1e-5)
        np.testing.assert_array_equal(geometry.qform[0], geometry.affine)

    @pytest.mark.parametrize("unit", [0, 2, 7])
    def test_unknown_units_are_millimetres(self, make_nifti: MakeNifti, unit: int) -> None:
        file = make_nifti(affine=np.diag([2.0, 3.0, 4.0, 1.0]))
        edit_header(file, xyzt_units=unit)
        np.testing.assert_allclose(read_geometry(file).spacing, (2, 3, 4))


def test_unknown_voxels_are_background_in_mask_and_label() -> None:
    label = torch.tensor([[0, 1, UNKNOWN_CLASS, 1]], dtype=torch.uint8)
    mask = torch.eye(2)[:, [0, 1, 1, 0]]
    item = LeaveOutUnknownd()({"pred": mask, "label": label})
    assert item["label"].tolist() == [[0, 1, 0, 1]]
    assert item["pred"].argmax(dim=0).tolist() == [0, 1, 0, 0]
    assert item["pred"].sum(dim=0).tolist() == [1.0] * 4
