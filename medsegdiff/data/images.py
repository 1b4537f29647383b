"""Read one image file, or one DICOM series, with its place in the world."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import io_orientation
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medsegdiff.data.dicom import Series, find_series, read_series
from medsegdiff.types import Geometry, InputError

NIFTI = (".nii", ".nii.gz")
PHOTOGRAPHS = (".png", ".jpg", ".jpeg")
_UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    zlib.error,
)

Source = str | Path | Series
"""A file, a folder with one DICOM series, or such a series."""


def read_image(source: Source) -> tuple[NDArray[Any], Geometry]:
    """Read values and geometry.

    Returns:
        values of the file's own type after its scaling, (X, Y), (X, Y, Z), or with one axis more
        (channels, raters, time); and the geometry of the two or three spatial axes. A photograph
        has two spatial axes, pixels of 1 mm, and its colours in the last axis.

    Raises:
        InputError: missing, unreadable, truncated or empty, of a kind that is not known, or
            without a usable geometry.
    """
    if isinstance(source, Series):
        return read_series(source)
    path = _existing(source)
    if path.is_dir():
        return read_series(_only_series(path))
    if path.name.lower().endswith(NIFTI):
        return _read_nifti(path)
    if path.name.lower().endswith(PHOTOGRAPHS):
        return _read_photograph(path)
    return read_series(_only_series(path))


def read_geometry(source: Source) -> Geometry:
    """Shape and affine of an image, of NIfTI from its header alone.

    Raises:
        InputError: as :func:`read_image`.
    """
    if not isinstance(source, Series) and str(source).lower().endswith(NIFTI):
        path = _existing(source)
        return _nifti_geometry(_open_nifti(path), path)
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
    if not path.exists():
        raise InputError(path, "no such file or folder", "Check the path")
    return path


def _only_series(path: Path) -> Series:
    series = find_series(path)
    if len(series) > 1:
        names = ", ".join(f"{one.number or '?'} ({one.description})" for one in series)
        rule = f"one DICOM series is needed, but there are {len(series)}: {names}"
        raise InputError(path, rule, "Give the folder of one series")
    return series[0]


def _open_nifti(path: Path) -> Any:
    try:
        return nib.load(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def _read_nifti(path: Path) -> tuple[NDArray[Any], Geometry]:
    image = _open_nifti(path)
    geometry = _nifti_geometry(image, path)
    try:
        array = np.asanyarray(image.dataobj)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    if array.dtype.kind not in "buif":
        rule = f"must hold one real number per voxel, not {array.dtype}"
        raise InputError(path, rule, "Store colours or complex parts as separate channels")
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim > 4:
        rule = f"has {array.ndim} axes {array.shape}, at most four are understood"
        raise InputError(path, rule, "Give one volume of it")
    return array, geometry


def _nifti_geometry(image: Any, path: Path) -> Geometry:
    shape = tuple(int(size) for size in image.shape[:3])
    if len(shape) < 2 or 0 in image.shape:
        rule = f"holds no image: its shape is {tuple(image.shape)}"
        raise InputError(path, rule, "Export the file again")
    affine = np.asarray(image.affine, dtype=np.float64)
    used = affine[:3, : len(shape)]
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(used) < len(shape):
        rule = "its affine maps no volume (it is singular or not finite)"
        raise InputError(path, rule, "Correct the header")
    return Geometry(shape, affine, *_nifti_forms(image.header, path), sources=(path,))


def _nifti_forms(header: Any, path: Path) -> tuple[Any, Any]:
    """Sform and qform with their codes; neither for formats such as Analyze that have none."""
    if not hasattr(header, "get_qform"):
        return None, None
    try:
        qform = np.asarray(header.get_qform(), dtype=np.float64)
    except HeaderDataError as error:
        raise _unreadable(path, error) from None
    sform = np.asarray(header.get_sform(), dtype=np.float64)
    return (sform, int(header["sform_code"])), (qform, int(header["qform_code"]))


def _read_photograph(path: Path) -> tuple[NDArray[Any], Geometry]:
    from PIL import Image, UnidentifiedImageError  # seldom needed

    try:
        with Image.open(path) as image:
            plain = image.mode in ("1", "L", "I", "F", "RGB") or image.mode.startswith("I;16")
            rows = np.asarray(image if plain else image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise _unreadable(path, error) from None
    array = rows.astype(np.uint8) if rows.dtype == bool else rows
    return array.swapaxes(0, 1), Geometry(array.shape[1::-1], np.eye(4), sources=(path,))


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(path, f"cannot be read as an image ({reason})", "Export the file again")
