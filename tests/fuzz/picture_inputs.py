"""PNG, JPEG, TIFF, GIF and BMP with damaged bytes; accepted ones have the size that they say."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medsegdiff.data.images import read_geometry, read_image
from tests.fuzz.isolation import Attempt
from tests.fuzz.mutations import damaged

HEADER = 64
_KINDS = {
    "png": ("L", "RGB", "P", "I;16", "1", "LA"),
    "jpg": ("L", "RGB", "CMYK"),
    "tif": ("L", "RGB", "F", "I;16", "1"),
    "gif": ("P",),
    "bmp": ("L", "RGB"),
}
_PACKED = (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
_TURNED = 0x0112  # the tag of EXIF


def attempt_picture(_: Path) -> Attempt:
    """Pictures of several kinds, modes and turns."""
    pictures = [
        (ending, _picture(np.random.default_rng(n), ending, mode, n))
        for n, (ending, mode) in enumerate((e, m) for e, modes in _KINDS.items() for m in modes)
    ]

    def attempt(rng: np.random.Generator, folder: Path) -> bool:
        ending, content = pictures[int(rng.integers(len(pictures)))]
        path = folder / f"x.{ending}"
        path.write_bytes(damaged(content, rng, HEADER if rng.random() < 0.5 else None))
        values, geometry = read_image(path)
        assert values.shape[:2] == geometry.shape == read_geometry(path).shape
        with Image.open(path) as image:
            assert sorted(image.size) == sorted(geometry.shape)
        return True

    return attempt


def _picture(rng: np.random.Generator, ending: str, mode: str, number: int) -> bytes:
    size = (37 + number, 29)
    if mode in ("F", "I;16"):
        image = Image.fromarray((1000 * rng.random(size)).astype("f4" if mode == "F" else "u2"))
    else:
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)
    exif, stream = image.getexif(), io.BytesIO()
    exif[_TURNED] = 1 + number % 8
    options: dict[str, Any] = {} if ending in ("bmp", "gif") else {"exif": exif}
    if ending == "tif" and mode in ("L", "RGB"):
        options |= {"compression": _PACKED[number % len(_PACKED)]}
    image.save(stream, {"jpg": "jpeg", "tif": "tiff"}.get(ending, ending), **options)
    return stream.getvalue()
