"""NRRD and MetaImage with a damaged header or damaged bytes; NRRD is compared with pynrrd."""

from __future__ import annotations

from pathlib import Path

import nrrd
import numpy as np
import SimpleITK as sitk

from medsegdiff.core.types import LPS_TO_RAS, Geometry
from medsegdiff.data.images import read_geometry, read_image
from tests.fuzz.isolation import Attempt
from tests.fuzz.mutations import damaged

_TYPES = (np.uint8, np.int16, np.float32, np.float64, np.uint16)
_SHAPES = ((5, 4, 3), (6, 5))
_HEADERS = {".nrrd": b"\n\n", ".mha": b"LOCAL\n"}
"""Ending -> bytes with which the header ends."""


def attempt_itk(folder: Path) -> Attempt:
    """Images of both formats, of several types and shapes, packed and not."""
    images = []
    for ending, end in _HEADERS.items():
        for number, (shape, dtype) in enumerate((s, t) for s in _SHAPES for t in _TYPES):
            path = folder / f"{number}{ending}"
            image = _image(np.random.default_rng(number), shape, dtype)
            sitk.WriteImage(image, str(path), useCompression=bool(number % 2))
            content = path.read_bytes()
            images.append((ending, content, content.index(end) + len(end)))

    def attempt(rng: np.random.Generator, folder: Path) -> bool:
        ending, content, header = images[int(rng.integers(len(images)))]
        path = folder / f"x{ending}"
        path.write_bytes(damaged(content, rng, header))
        values, geometry = read_image(path)
        np.testing.assert_array_equal(geometry.affine, read_geometry(path).affine)
        assert values.shape[: len(geometry.shape)] == geometry.shape
        if ending == ".nrrd":
            _compare_with_pynrrd(path, values, geometry)
        return True

    return attempt


def _image(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> sitk.Image:
    image = sitk.GetImageFromArray((100 * rng.random(shape)).astype(dtype))
    image.SetSpacing((0.8, 1.3, 2.5)[: len(shape)])
    image.SetOrigin(rng.normal(0, 20, len(shape)).tolist())
    return image


def _compare_with_pynrrd(path: Path, values: np.ndarray, geometry: Geometry) -> None:
    """A second reader, of values and of the axes in the world."""
    try:
        found, header = nrrd.read(str(path))
    except Exception:
        return  # ITK is more tolerant
    if found.shape == values.shape:
        np.testing.assert_array_equal(values, found)
    axes, origin = header.get("space directions"), header.get("space origin")
    if axes is None or origin is None or header.get("space") != "left-posterior-superior":
        return
    if axes.shape != (3, 3) or not np.isfinite(axes).all():
        return
    expected = np.eye(4)
    expected[:3, :3], expected[:3, 3] = axes.T, origin
    np.testing.assert_allclose(geometry.affine, LPS_TO_RAS @ expected, rtol=1e-4, atol=1e-3)
