"""NIfTI -> values and geometry, by nibabel."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Form, Geometry
from medsegdiff.data.readers.damage import DAMAGED, unreadable

_DEFLATED = 1032  # no byte of a gzip stream holds more of the file than so many
_WRONG_UNITS = {1: "metres", 3: "micrometres"}  # NIfTI-1, xyzt_units; 2 is mm, 0 is taken as mm


def read_nifti(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Values after the file's own scaling, and the geometry with its sform and qform.

    Raises:
        InputError: unreadable, truncated, empty, not real, or without a usable geometry.
    """
    image = _opened(path)
    geometry = _geometry(image, path)
    try:
        array = _values(image, path)
    except DAMAGED as error:
        raise unreadable(path, error) from None
    if array.dtype.kind not in "buif":
        rule = f"must hold one real number per voxel, not {array.dtype}"
        raise InputError(path, rule, "Store colours or complex parts as separate channels")
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim > 4:
        rule = f"has {array.ndim} axes {array.shape}, at most four are understood"
        raise InputError(path, rule, "Give one volume of it")
    return array, geometry


def read_nifti_geometry(path: Path) -> Geometry:
    """The geometry alone, from the header.

    Raises:
        InputError: as :func:`read_nifti`, of the header.
    """
    return _geometry(_opened(path), path)


def _opened(path: Path) -> Any:
    try:
        image = nib.load(path)
    except DAMAGED as error:
        raise unreadable(path, error) from None
    if not isinstance(image, nib.Nifti1Image):
        raise InputError(path, f"is no volume but {type(image).__name__}", "Give a volume")
    return image


def _values(image: Any, path: Path) -> NDArray[Any]:
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


def _geometry(image: Any, path: Path) -> Geometry:
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
