"""Reads values and geometry of NIfTI files, by nibabel."""

from __future__ import annotations

import gzip
import math
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.limits import check_inflation, check_size
from medsegdiff.core.types import Form, Geometry
from medsegdiff.data.readers.damage import DAMAGED, unreadable

_DEFLATED = 1032  # greatest ratio of bytes of a file to bytes of its gzip stream
_LONGEST_HEADER = 2**26  # bytes, with its extensions; those of scanners are far shorter
_QUATERNION_EXCESS = -1e-3  # how far the squared length of a quaternion may exceed 1 by rounding
_MOST_CHANNELS = 4  # beyond, a last axis behind a first one of length 1 is of space
_WRONG_UNITS = {1: "metres", 3: "micrometres"}  # NIfTI-1, xyzt_units; 2 is mm, 0 is taken as mm


def read_nifti(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Values after the file's own scaling, and the geometry with its sform and qform.

    A first axis of length 1 before three others, as arrays with channels first have it, is no axis
    of space. What the header leaves to guesses is in the geometry's notes.

    Raises:
        InputError: the file is unreadable, truncated or empty, its values are not real or too many,
            or its geometry is not usable.
    """
    image = _opened(path)
    geometry = _geometry(image, path)
    try:
        array = _values(image, path)
    except DAMAGED as error:
        raise unreadable(path, error) from None
    if _has_leading_axis(image):
        array = array[0]
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
        InputError: as for :func:`read_nifti`, for faults of the header.
    """
    return _geometry(_opened(path), path)


def _opened(path: Path) -> Any:
    try:
        _check_beginning(path)
        image = nib.load(path)
    except (HeaderDataError, ValueError) as error:
        image = _opened_with_tolerance(path, error)
    except DAMAGED as error:
        raise unreadable(path, error) from None
    if not isinstance(image, nib.Nifti1Image):
        raise InputError(path, f"is no volume but {type(image).__name__}", "Give a volume")
    if image.dataobj.offset < image.header.sizeof_hdr:  # as some programs write: 0
        shape, dtype, _, slope, inter = _spec(image)
        first = image.header.single_vox_offset
        image._dataobj = ArrayProxy(str(path), (shape, dtype, first, slope, inter))
    return image


def _spec(image: Any) -> tuple[Any, ...]:
    """Shape, type, first byte, slope and intercept of the values of a file."""
    proxy = image.dataobj
    return proxy.shape, proxy.dtype, proxy.offset, proxy.slope, proxy.inter


def _check_beginning(path: Path) -> None:
    """Refuse a file whose values begin far behind its header: nibabel reads all before them.

    Raises:
        ImageFileError: they do.
        DAMAGED: the file cannot be read.
    """
    with ImageOpener(str(path)) as stream:
        header = stream.read(nib.Nifti2Header.template_dtype.itemsize)
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        dtype = kind.template_dtype
        if len(header) < dtype.itemsize:
            continue
        for order in "<>":
            fields = np.frombuffer(header, dtype.newbyteorder(order), count=1)[0]
            if fields["sizeof_hdr"] == dtype.itemsize and fields["vox_offset"] > _LONGEST_HEADER:
                raise ImageFileError(f"its values begin at byte {fields['vox_offset']:.4g}")


def _opened_with_tolerance(path: Path, error: Exception) -> Any:
    """The image if all that is wrong with it is the rounding of its quaternion.

    Raises:
        InputError: something else is wrong.
    """
    for kind in (_RoundedNifti1, _RoundedNifti2):
        try:
            return kind.from_filename(path)
        except DAMAGED:
            continue
    raise unreadable(path, error)


class _RoundedHeader1(nib.Nifti1Header):
    quaternion_threshold = _QUATERNION_EXCESS


class _RoundedHeader2(nib.Nifti2Header):
    quaternion_threshold = _QUATERNION_EXCESS


class _RoundedNifti1(nib.Nifti1Image):
    header_class = _RoundedHeader1


class _RoundedNifti2(nib.Nifti2Image):
    header_class = _RoundedHeader2


def _values(image: Any, path: Path) -> NDArray[Any]:
    """All values; a compressed file is read to its end, so that its checksum is tested."""
    compressed = path.name.lower().endswith(".gz")
    needed = math.prod(image.shape) * image.get_data_dtype().itemsize
    if needed > path.stat().st_size * (_DEFLATED if compressed else 1):
        raise EOFError(f"the file is too short for the {needed} bytes that its header announces")
    check_size(path, needed)
    if not compressed:
        return np.asanyarray(image.dataobj)
    packed, unpacked = path.stat().st_size, math.prod(image.shape)
    check_inflation(path, packed, unpacked)
    with gzip.open(path) as stream:
        values = np.asanyarray(ArrayProxy(stream, _spec(image)))
        while rest := len(stream.read(2**20)):
            unpacked += rest
            check_inflation(path, packed, unpacked)
    return values


def _geometry(image: Any, path: Path) -> Geometry:
    spatial = image.shape[1:] if _has_leading_axis(image) else image.shape[:3]
    shape = tuple(int(size) for size in spatial)
    if len(shape) < 2 or 0 in image.shape:
        rule = f"holds no image: its shape is {tuple(image.shape)}"
        raise InputError(path, rule, "Export the file again")
    unit = _WRONG_UNITS.get(int(image.header["xyzt_units"]) & 7)
    if unit:
        rule = f"its header gives lengths in {unit}, where millimetres are needed"
        raise InputError(path, rule, "Save it with voxel sizes and unit in millimetres")
    by_qform = image.header["sform_code"] == 0 and image.header["qform_code"] > 0
    handedness, *sizes = _pixdim(image, path)
    if by_qform and (min(sizes) < 0.0 or (handedness < 0.0 and handedness != -1.0)):
        rule = "its header gives negative voxel sizes, by which some programs mirror it"
        raise InputError(path, rule, "Save it with positive sizes and a right qform")
    affine = np.asarray(image.affine, dtype=np.float64)
    used = affine[:3, : len(shape)]
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(used) < len(shape):
        rule = "its affine is singular or not finite"
        raise InputError(path, rule, "Save it with an affine of its voxel sizes and directions")
    sform = np.asarray(image.header.get_sform(), dtype=np.float64), int(image.header["sform_code"])
    qform = _qform(image.header, affine)
    notes = (*_guesses(image, path), *_contradiction(sform, qform, shape))
    return Geometry(shape, affine, sform, qform, (path,), notes)


def _has_leading_axis(image: Any) -> bool:
    """Whether a first axis of length 1 stands before three of space."""
    shape = image.shape
    return len(shape) == 4 and shape[0] == 1 and min(shape[1:]) > _MOST_CHANNELS


def _guesses(image: Any, path: Path) -> tuple[str, ...]:
    """What the header does not say, and is taken to be."""
    notes = []
    codes = int(image.header["sform_code"]), int(image.header["qform_code"])
    if codes == (0, 0):
        notes.append(
            "its header sets neither sform nor qform: the orientation is a guess (axes to the "
            "left, to the front and upwards), and so are left and right"
        )
    if codes[0] == 0 and not np.array(_pixdim(image, path)[1:]).all():
        notes.append("its header gives voxel sizes of 0: they are taken as 1 mm, which is a guess")
    if _has_leading_axis(image):
        notes.append(f"its first axis has length 1: one volume of {image.shape[1:]} is read")
    return tuple(notes)


def _contradiction(sform: Form, qform: Form, shape: tuple[int, ...]) -> tuple[str, ...]:
    """A note where sform and qform, both set, place a corner more than half a voxel apart."""
    if not (sform[1] and qform[1]):
        return ()
    last = [(0, n - 1) for n in shape] + [(0,)] * (3 - len(shape))
    corners = np.array([(*corner, 1) for corner in product(*last)]).T
    apart = float(np.linalg.norm((sform[0] @ corners - qform[0] @ corners)[:3], axis=0).max())
    if apart <= 0.5 * np.linalg.norm(sform[0][:3, : len(shape)], axis=0).min():
        return ()
    return (
        f"its sform and qform place a corner {apart:.1f} mm apart: the sform is used, as nibabel "
        "does; other programs may use the qform",
    )


def _pixdim(image: Any, path: Path) -> list[float]:
    """Handedness and voxel sizes as the file has them: nibabel sets those of 0 to 1."""
    try:
        with ImageOpener(str(path)) as stream:
            header = image.header_class.from_fileobj(stream, check=False)
    except DAMAGED as error:
        raise unreadable(path, error) from None
    return [float(value) for value in header["pixdim"][:4]]


def _qform(header: Any, affine: NDArray[np.float64]) -> Form:
    """The qform and its code; unset (code 0) if its quaternion is not valid.

    nibabel refuses to open an image whose position depends on an invalid quaternion.
    """
    try:
        qform = np.asarray(header.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        return affine, 0
    return (qform, int(header["qform_code"])) if np.isfinite(qform).all() else (affine, 0)
