"""Photographs, and masks that were saved as such."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medsegdiff.core.errors import InputError
from medsegdiff.data.images import read_geometry, read_image
from medsegdiff.data.transforms import LoadCased

INDICES = np.array([[0, 1, 2, 0], [2, 1, 0, 0], [1, 1, 2, 2]], np.uint8)  # rows, columns
LOSSLESS = (".png", ".tif", ".gif", ".bmp")


def coloured(path: Path, palette: list[int], indices: np.ndarray = INDICES) -> Path:
    image = Image.fromarray(indices)
    image.putpalette(palette)
    image.save(path)
    return path


@pytest.mark.parametrize("ending", LOSSLESS)
def test_a_mask_with_a_palette_holds_its_indices(tmp_path: Path, ending: str) -> None:
    path = coloured(tmp_path / f"a{ending}", [0, 0, 0, 128, 0, 0, 0, 128, 0])
    np.testing.assert_array_equal(read_image(path, label=True)[0], INDICES.T)
    assert read_image(path)[0][1, 0].tolist() == [128, 0, 0]  # an image has its colours


@pytest.mark.parametrize("ending", [".png", ".tif", ".gif"])
@pytest.mark.parametrize("palette", [[0, 0, 0, 255, 255, 255], [255, 255, 255, 0, 0, 0]])
def test_label_values_may_mean_the_greys_of_a_palette(
    tmp_path: Path, ending: str, palette: list[int]
) -> None:
    indices = (INDICES > 0).astype(np.uint8)
    path = coloured(tmp_path / f"a{ending}", palette, indices)
    Image.new("L", (4, 3)).save(tmp_path / "image.png")
    item = {"image": [tmp_path / "image.png"], "label": [path]}
    shown = item | {"label_values": ((0, 0, 0), (255, 255, 1))}
    white = (indices > 0) == (palette[3] == 255)
    np.testing.assert_array_equal(LoadCased(2)(shown)["label"][0], white.T)
    by_index = item | {"label_values": ((0, 0, 1), (1, 1, 2))}
    np.testing.assert_array_equal(LoadCased(2)(by_index)["label"][0], indices.T + 1)
    np.testing.assert_array_equal(LoadCased(2)(item)["label"][0], indices.T)


def test_a_palette_of_greys_is_one_channel(tmp_path: Path) -> None:
    path = coloured(tmp_path / "a.gif", [9, 9, 9, 70, 70, 70, 200, 200, 200])
    expected = np.array([9, 70, 200])[INDICES.T]
    np.testing.assert_array_equal(read_image(path)[0], expected)


@pytest.mark.parametrize(("mode", "channels"), [("LA", 1), ("RGBA", 3)])
def test_transparency_is_no_channel(tmp_path: Path, mode: str, channels: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 4, channels + 1)).astype(np.uint8)
    Image.fromarray(pixels, mode).save(tmp_path / "a.png")
    loaded = LoadCased(2, channels=channels)({"image": [str(tmp_path / "a.png")]})["image"]
    np.testing.assert_array_equal(loaded, pixels[..., :-1].transpose(2, 1, 0))


@pytest.mark.parametrize("ending", [".jpg", ".tif", ".png"])
@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_pictures_are_turned_upright(
    tmp_path: Path, ending: str, orientation: int, turns: int
) -> None:
    pixels = np.zeros((16, 32), np.uint8)
    pixels[:8, :8] = 240  # a corner that says where the top left was stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{ending}"
    Image.fromarray(pixels).save(path, exif=exif)
    upright = np.rot90(pixels, turns)  # 6: to be turned clockwise by a quarter to be seen
    values, geometry = read_image(path)
    np.testing.assert_allclose(values, upright.T, atol=8)
    assert geometry.shape == read_geometry(path).shape == upright.T.shape


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "int32"])
def test_tiff_keeps_its_numbers(tmp_path: Path, kind: str) -> None:
    pixels = (np.arange(12).reshape(3, 4) * 20).astype(kind)
    Image.fromarray(pixels).save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tiff")[0], pixels.T)


@pytest.mark.parametrize("ending", [".tif", ".gif"])
def test_several_pictures_in_a_file_are_refused(tmp_path: Path, ending: str) -> None:
    pages = [Image.new("L", (4, 3), grey) for grey in (0, 99, 200)]
    pages[0].save(tmp_path / f"a{ending}", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="holds 3 pictures"):
        read_image(tmp_path / f"a{ending}")
