"""Read one image file, or one DICOM series, with its place in the world."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import io_orientation
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.quiet import silenced
from medsegdiff.core.types import Form, Geometry
from medsegdiff.data.dicom import Series, find_series, read_series

NIFTI = (".nii", ".nii.gz")
PHOTOGRAPHS = (".png", ".jpg", ".jpeg", ".bmp")
_UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,
    zlib.error,
)
_DEFLATED = 1032  # no byte of a gzip stream holds more of the file than so many
_WRONG_UNITS = {1: "metres", 3: "micrometres"}  # NIfTI-1, xyzt_units; 2 is mm, 0 is taken as mm

Source = str | Path | Series
"""A file, a folder with one DICOM series, or such a series."""


@silenced()
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
        return read_series(only_series(path))
    if path.name.lower().endswith(NIFTI):
        return _read_nifti(path)
    if path.name.lower().endswith(PHOTOGRAPHS):
        return _read_photograph(path)
    return read_series(only_series(path))


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
    try:
        path.stat()
    except FileNotFoundError:
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
        raise InputError(path, rule, "Give the folder of one series")
    return series[0]


def _open_nifti(path: Path) -> Any:
    try:
        image = nib.load(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None
    if not isinstance(image, nib.Nifti1Image):
        raise InputError(path, f"is no volume but {type(image).__name__}", "Give a volume")
    return image


def _read_nifti(path: Path) -> tuple[NDArray[Any], Geometry]:
    image = _open_nifti(path)
    geometry = _nifti_geometry(image, path)
    try:
        array = _nifti_values(image, path)
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


def _nifti_values(image: Any, path: Path) -> NDArray[Any]:
    """All values; a compressed file is read to its very end, where its checksum stands."""
    compressed = path.name.lower().endswith(".gz")
    needed = math.prod(image.shape) * image.get_data_dtype().itemsize
    if needed > path.stat().st_size * (_DEFLATED if compressed else 1):
        raise EOFError(f"the file is too short for the {needed} bytes that its header announces")
    if not compressed:
        return np.asanyarray(image.dataobj)
    with gzip.open(path) as stream:
        values = np.asanyarray(type(image).from_stream(stream).dataobj)
        while stream.read(2**20):
            pass
    return values


def _nifti_geometry(image: Any, path: Path) -> Geometry:
    shape = tuple(int(size) for size in image.shape[:3])
    if len(shape) < 2 or 0 in image.shape:
        rule = f"holds no image: its shape is {tuple(image.shape)}"
        raise InputError(path, rule, "Export the file again")
    unit = _WRONG_UNITS.get(int(image.header["xyzt_units"]) & 7)
    if unit:
        rule = f"its header gives lengths in {unit}, where millimetres are needed"
        raise InputError(path, rule, "Save it with voxel sizes and unit in millimetres")
    affine = np.asarray(image.affine, dtype=np.float64)
    used = affine[:3, : len(shape)]
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(used) < len(shape):
        rule = "its affine maps no volume (it is singular or not finite)"
        raise InputError(path, rule, "Correct the header")
    sform = np.asarray(image.header.get_sform(), dtype=np.float64), int(image.header["sform_code"])
    return Geometry(shape, affine, sform, _qform(image.header, affine), sources=(path,))


def _qform(header: Any, affine: NDArray[np.float64]) -> Form:
    """The qform and its code; not set where its quaternion is none.

    Where the image's place depends on it, such an image could not even be opened.
    """
    try:
        qform = np.asarray(header.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        return affine, 0
    return (qform, int(header["qform_code"])) if np.isfinite(qform).all() else (affine, 0)


def _read_photograph(path: Path) -> tuple[NDArray[Any], Geometry]:
    from PIL import Image  # seldom needed

    try:
        with Image.open(path) as image:
            plain = image.mode in ("1", "L", "I", "F", "RGB") or image.mode.startswith("I;16")
            rows = np.asarray(image if plain else image.convert("RGB"))
    except (*_UNREADABLE, SyntaxError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from None
    array = rows.astype(np.uint8) if rows.dtype == bool else rows
    return array.swapaxes(0, 1), Geometry(array.shape[1::-1], np.eye(4), sources=(path,))


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(path, f"cannot be read as an image ({reason})", "Export the file again")
