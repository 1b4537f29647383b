"""Reads the pixels of PNG, JPEG, TIFF, GIF and BMP files, by Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.core.worker_process import WorkerError
from medsegdiff.data.readers.apart import read_apart
from medsegdiff.data.readers.damage import unreadable


def read_photograph(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Pixels (columns, rows), or (columns, rows, 3) in colour, upright as EXIF says.

    A palette of greys is read as one channel, any other palette as colour; transparency is ignored.

    Raises:
        InputError: the file is unreadable or truncated, or holds several pictures.
    """
    return _read(path, "picture")


def read_mask_photograph(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Like :func:`read_photograph`, but a palette's indices are the values, not its colours.

    Raises:
        InputError: as for :func:`read_photograph`.
    """
    return _read(path, "mask_picture")


def _read(path: Path, what: str) -> tuple[NDArray[Any], Geometry]:
    try:
        found, rows = read_apart(what, [path])
    except (WorkerError, OSError) as error:
        raise unreadable(path, error) from None
    if found["pages"] > 1:
        rule = f"holds {found['pages']} pictures, but one is needed"
        raise InputError(path, rule, "Save them one by one, or as a volume (NIfTI)")
    array = rows.astype(np.uint8) if rows.dtype == bool else rows
    geometry = Geometry(array.shape[1::-1], np.eye(4), sources=(path,), unit="pixel")
    return array.swapaxes(0, 1), geometry
