"""Read one image file, or one DICOM series, with its place in the world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.quiet import silenced
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import Series, find_series, read_series
from medsegdiff.data.formats import format_of
from medsegdiff.data.readers.damage import broken_link, is_broken_link

Source = str | Path | Series
"""A file, a folder with one DICOM series, or such a series."""


@silenced()
def read_image(source: Source, *, label: bool = False) -> tuple[NDArray[Any], Geometry]:
    """Read values and geometry.

    Args:
        source: its format is known by its name (:mod:`medsegdiff.data.formats`); what has no such
            name is DICOM.
        label: whether it holds class numbers: a palette's index is then the value.

    Returns:
        values of the file's own type after its scaling, (X, Y), (X, Y, Z), or with one axis more
        (channels, raters, time); and the geometry of the two or three spatial axes. A photograph
        has two spatial axes, pixels of 1 mm, and its colours in the last axis.

    Raises:
        InputError: missing, unreadable, truncated or empty, of a kind that is not known, or
            without a usable geometry.
    """
    values, geometry = _read(source, label)
    if not label and values.size and values.min() == values.max():
        note = f"all its values are {values.flat[0]:g}: there is no image in it"
        geometry = replace(geometry, notes=(*geometry.notes, note))
    return values, geometry


def _read(source: Source, label: bool) -> tuple[NDArray[Any], Geometry]:
    if isinstance(source, Series):
        return read_series(source)
    path = _existing(source)
    found = None if path.is_dir() else format_of(path)
    if found is None:
        return read_series(only_series(path))
    return found.read_label(path) if label and found.read_label else found.read(path)


def read_geometry(source: Source) -> Geometry:
    """Shape and affine of an image, from its header alone where the format has one.

    Raises:
        InputError: as :func:`read_image`.
    """
    found = format_of(source)
    if found and found.read_geometry and not isinstance(source, Series):
        path = _existing(source)
        if not path.is_dir():
            return found.read_geometry(path)
    return read_image(source)[1]


def grid_distance(first: Geometry, second: Geometry) -> float:
    """How far apart two grids lie: the greatest distance of equal voxels, in voxels of the first.

    Both are taken over the first one's corners, so shapes may differ in trailing axes.
    """
    ends = [(0, max(size - 1, 1)) for size in (*first.shape, 1)[:3]]
    corners = np.stack([*np.meshgrid(*ends, indexing="ij"), np.ones((2, 2, 2))], axis=-1)
    apart = corners @ (first.affine - second.affine).T
    return float(np.linalg.norm(apart[..., :3], axis=-1).max() / min(first.spacing))


def plane_affine(geometry: Geometry) -> NDArray[np.float64]:
    """Affine of a plane by itself, in millimetres from its first pixel.

    MONAI's transforms of two axes see only the upper left of an affine, which is singular for a
    sagittal or coronal plane and too short for an oblique one. An axial plane keeps the directions
    of its axes (to the nearest of right and front); any other has none, and is taken as it is.
    """
    flat = np.eye(4)
    ornt = io_orientation(geometry.affine[:, [0, 1, 3]])
    directions = np.eye(2)
    if set(ornt[:, 0]) == {0.0, 1.0}:
        directions = np.zeros((2, 2))
        directions[ornt[:, 0].astype(int), [0, 1]] = ornt[:, 1]
    flat[:2, :2] = directions * np.array(geometry.spacing[:2])
    return flat


def _existing(source: str | Path) -> Path:
    path = Path(source).expanduser()
    try:
        path.stat()
    except FileNotFoundError:
        if is_broken_link(path):
            raise broken_link(path) from None
        raise InputError(path, "no such file or folder", "Check the path") from None
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Check the path") from None
    return path


def only_series(path: Path) -> Series:
    """The series of a folder or file that holds one.

    Raises:
        InputError: none, or several.
    """
    series = find_series(path)
    if len(series) > 1:
        numbers = ", ".join("?" if s.number is None else str(s.number) for s in series)
        rule = f"one DICOM series is needed, but there are {len(series)}, with numbers {numbers}"
        raise InputError(path, rule, "Put the files of one in a folder of its own, and give that")
    return series[0]
