"""Reads the pixels of PNG, JPEG, TIFF, GIF and BMP files, by Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.readers.damage import DAMAGED, unreadable

_ALPHA = {"LA": "L", "La": "L", "PA": "P"}
"""Modes of one channel with transparency -> mode without transparency."""


def read_photograph(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Pixels (columns, rows), or (columns, rows, 3) in colour, upright as EXIF says.

    A palette of greys is read as one channel, any other palette as colour; transparency is ignored.

    Raises:
        InputError: the file is unreadable or truncated, or holds several pictures.
    """
    return _read(path, by_index=False)


def read_mask_photograph(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Like :func:`read_photograph`, but a palette's indices are the values, not its colours.

    Raises:
        InputError: as for :func:`read_photograph`.
    """
    return _read(path, by_index=True)


def _read(path: Path, by_index: bool) -> tuple[NDArray[Any], Geometry]:
    from PIL import Image, ImageOps  # seldom needed

    try:
        # From a stream: Pillow maps a named raw TIFF into memory, and then rotates it wrongly.
        with path.open("rb") as stream, Image.open(stream) as image:
            pages = getattr(image, "n_frames", 1)
            if pages > 1:
                rule = f"holds {pages} pictures, but one is needed"
                raise InputError(path, rule, "Save them one by one, or as a volume (NIfTI)")
            rows = np.asarray(_plain(ImageOps.exif_transpose(image), by_index))
    except (*DAMAGED, SyntaxError, KeyError, TypeError, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from None
    array = rows.astype(np.uint8) if rows.dtype == bool else rows
    geometry = Geometry(array.shape[1::-1], np.eye(4), sources=(path,), unit="pixel")
    return array.swapaxes(0, 1), geometry


def _plain(image: Any, by_index: bool) -> Any:
    """The picture with one channel, or with red, green and blue."""
    if image.mode in _ALPHA:
        image = image.getchannel(_ALPHA[image.mode])
    if image.mode == "P" and not by_index:
        red, green, blue = np.array(image.getpalette("RGB")).reshape(-1, 3).T
        return image.convert("L" if (red == green).all() and (green == blue).all() else "RGB")
    plain = image.mode in ("1", "L", "I", "F", "P", "RGB") or image.mode.startswith("I;16")
    return image if plain else image.convert("RGB")
