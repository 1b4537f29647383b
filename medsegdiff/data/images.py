"""Reads one image file, or one DICOM series, with its position in the world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.limits import EXTENT_MM
from medsegdiff.core.quiet import silenced
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import Series, find_series, read_series
from medsegdiff.data.formats import format_of
from medsegdiff.data.readers.damage import broken_link, is_broken_link

Source = str | Path | Series
"""A file, a folder with one DICOM series, or such a series."""


@silenced()
def read_image(source: Source, *, label: bool = False) -> tuple[NDArray[Any], Geometry]:
    """Read the values and the geometry of an image.

    Args:
        source: Source of the image. Its format follows from its name
            (:mod:`medsegdiff.data.formats`); a source of any other name is DICOM.
        label: Whether the source holds class numbers; the values of a palette image are then its
            indices.

    Returns:
        Values of the file's own type after its scaling, (X, Y), (X, Y, Z), or with one more axis
        (channels, raters, time); and the geometry of the two or three spatial axes. A photograph
        has two spatial axes, pixels of 1 mm, and its colours in the last axis.

    Raises:
        InputError: the source is missing, unreadable, truncated or empty, its format is unknown,
            its geometry is not usable, or it is beyond a limit of :mod:`medsegdiff.core.limits`.
    """
    values, geometry = _read(source, label)
    _check_extent(source, geometry)
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


def _check_extent(source: Source, geometry: Geometry) -> None:
    """Refuse a grid that no scan has: what resamples it would take the whole memory."""
    extent = max(n * mm for n, mm in zip(geometry.shape, geometry.spacing, strict=True))
    if geometry.unit == "mm" and extent > EXTENT_MM.value:
        shown = " x ".join(f"{mm:.4g}" for mm in geometry.spacing)
        rule = f"its voxels of {shown} mm make an image of {extent:.4g} mm"
        raise EXTENT_MM.refusal(source, rule)


def read_geometry(source: Source) -> Geometry:
    """Shape and affine of an image, from its header alone where the format has one.

    Raises:
        InputError: as for :func:`read_image`.
    """
    found = format_of(source)
    if found and found.read_geometry and not isinstance(source, Series):
        path = _existing(source)
        if not path.is_dir():
            return found.read_geometry(path)
    return read_image(source)[1]


def grid_distance(first: Geometry, second: Geometry) -> float:
    """Distance of two grids: the greatest distance of equal voxels, in voxels of the first grid.

    It is measured at the corners of the first grid, so shapes may differ in trailing axes.
    """
    ends = [(0, max(size - 1, 1)) for size in (*first.shape, 1)[:3]]
    corners = np.stack([*np.meshgrid(*ends, indexing="ij"), np.ones((2, 2, 2))], axis=-1)
    apart = corners @ (first.affine - second.affine).T
    return float(np.linalg.norm(apart[..., :3], axis=-1).max() / min(first.spacing))


def plane_affine(geometry: Geometry) -> NDArray[np.float64]:
    """Two-dimensional affine of a plane, in millimetres from its first pixel.

    MONAI's two-dimensional transforms use only the upper left of an affine, which is singular for a
    sagittal or coronal plane and too short for an oblique one. An axial plane keeps the directions
    of its axes (the nearest of right and anterior); any other plane gets the identity's directions.
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
    """The only DICOM series in a folder or file.

    Raises:
        InputError: there is no series, or more than one.
    """
    series = find_series(path)
    if len(series) > 1:
        numbers = ", ".join("?" if s.number is None else str(s.number) for s in series)
        rule = f"one DICOM series is needed, but there are {len(series)}, with numbers {numbers}"
        raise InputError(path, rule, "Put the files of one in a folder of its own, and give that")
    return series[0]
