"""One table of formats: what a name means, and the same image in every format."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medsegdiff.core.errors import InputError
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.formats import FORMATS, format_of, is_photograph, list_endings
from medsegdiff.data.images import read_geometry, read_image
from medsegdiff.data.transforms import LoadCased

VOLUMES = [one for one in FORMATS if one.kind != "photograph"]
VOLUME_ENDINGS = [end for one in VOLUMES for end in one.endings]


def oblique_image(channels: int = 1) -> sitk.Image:
    """A volume of unequal sides, spacings and directions, by SimpleITK."""
    rng = np.random.default_rng(0)
    shape = (5, 4, 3) if channels == 1 else (5, 4, 3, channels)
    image = sitk.GetImageFromArray(rng.integers(-99, 99, shape).astype(np.int16), channels > 1)
    turn = sitk.VersorTransform((0.6, 0.0, 0.8), 0.4)
    image.SetDirection(turn.GetMatrix())
    image.SetSpacing((0.5, 1.25, 3.0))
    image.SetOrigin((-31.5, 12.25, 7.0))
    return image


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_same_voxels_and_place_in_every_format(tmp_path: Path, ending: str) -> None:
    image, path = oblique_image(), tmp_path / f"a{ending}"
    sitk.WriteImage(image, path)
    values, geometry = read_image(path)
    np.testing.assert_array_equal(values, sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    for index in ((0, 0, 0), (2, 3, 4), (1, 0, 3)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        ras = (geometry.affine @ [*index, 1])[:3]
        np.testing.assert_allclose(ras, lps * [-1, -1, 1], atol=1e-4)
    header = read_geometry(path)
    assert header.shape == geometry.shape == (3, 4, 5)
    np.testing.assert_array_equal(header.affine, geometry.affine)


def test_agrees_with_nifti_by_nibabel(tmp_path: Path) -> None:
    sitk.WriteImage(oblique_image(), tmp_path / "a.nii.gz")
    sitk.WriteImage(oblique_image(), tmp_path / "a.nrrd")
    expected = nib.load(tmp_path / "a.nii.gz")
    values, geometry = read_image(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(values, expected.get_fdata())
    np.testing.assert_allclose(geometry.affine, expected.affine, atol=1e-5)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_channels_are_the_last_axis(tmp_path: Path, ending: str) -> None:
    image = oblique_image(channels=2)
    sitk.WriteImage(image, tmp_path / f"a{ending}")
    loaded = LoadCased(channels=2)({"image": [str(tmp_path / f"a{ending}")]})["image"]
    expected = sitk.GetArrayFromImage(image).transpose(3, 2, 1, 0)
    np.testing.assert_array_equal(loaded, expected)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_plane_has_two_axes(tmp_path: Path, ending: str) -> None:
    sitk.WriteImage(oblique_image()[:, :, 0], tmp_path / f"a{ending}")
    assert read_geometry(tmp_path / f"a{ending}").shape == (3, 4)


@pytest.mark.parametrize("ending", [e for e in list_endings() if e != ".nii"])
@pytest.mark.parametrize("content", [b"", b"this is no image\n" * 40], ids=["empty", "text"])
def test_what_is_no_image_is_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as an image") as caught:
        read_image(path)
    assert "\n" not in str(caught.value) and caught.value.subject == str(path)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".png", ".tif"])
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_files_are_refused(tmp_path: Path, ending: str, compressed: bool) -> None:
    path = tmp_path / f"a{ending}"
    noise = np.random.default_rng(0).integers(0, 255, (60, 80)).astype(np.uint8)
    if is_photograph(path):
        Image.fromarray(noise).save(path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(noise[None]), path, compressed)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(path)


@pytest.mark.parametrize("ending", [".nhdr", ".mhd"])
def test_values_beside_their_header_count_to_the_case(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(oblique_image(), path)
    files = CaseInput("a", (path,)).files
    assert files[0] == path and len(files) == 2 and files[1].stat().st_size == 5 * 4 * 3 * 2
    files[1].unlink()
    with pytest.raises(InputError, match="which does not exist"):
        read_image(path)


def test_values_in_a_list_and_by_a_pattern(tmp_path: Path) -> None:
    slices = [tmp_path / f"a{number}.raw" for number in range(2)]
    for file in slices:
        file.write_bytes(bytes(6))
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 3 2 2\nencoding: raw\n"
    for name, data in (("list", "LIST\na0.raw\na1.raw\n"), ("pattern", "a%d.raw 0 1 1\n")):
        path = tmp_path / f"{name}.nhdr"
        path.write_text(f"{head}data file: {data}")
        assert CaseInput("a", (path,)).files == (path, *slices)
        assert read_image(path)[0].shape == (3, 2, 2)


def test_every_ending_is_of_one_format() -> None:
    endings = list_endings()
    assert len(set(endings)) == len(endings) and all(end == end.lower() for end in endings)
    for one in FORMATS:
        assert all(format_of(f"x{end}") is one for end in one.endings)


def test_endings_are_spelled_in_the_table_alone() -> None:
    """The code asks the table; files that we write, and layouts of public sets, name their own."""
    import medsegdiff

    root = Path(medsegdiff.__file__).parent
    for path in sorted(root.rglob("*.py")):
        if path == root / "data" / "formats.py":
            continue
        found = re.findall(r"endswith\(.*[\"']\.(?:nii|png|jpe?g|tiff?|nrrd)", path.read_text())
        assert not found, path
