"""Writes arrays as NIfTI files in exactly the input's space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.types import Geometry
from medsegdiff.writers.label_table import CARET, caret_extension
from medsegdiff.writers.segments import Segment

SCANNER = 1
"""NIfTI code of a form (sform or qform) in the scanner's coordinates."""

ROUNDING = 1e-3
"""Allowed distance of a label from a whole number, and of a value outside its limits."""


def write_nifti(
    path: str | Path,
    array: NDArray[np.generic],
    geometry: Geometry,
    *,
    dtype: Literal["uint8", "float32"],
    description: str = "",
    limits: tuple[float, float] | None = None,
    segments: Sequence[Segment] = (),
) -> None:
    """Write an array with the source's shape and forms; the file is complete or absent.

    For a NIfTI source, the file has the source's sform and qform with their codes. For any other
    format, both forms are the affine, with code 1. Units are millimetres, values are unscaled.

    Args:
        path: Path of the file, ending in ``.nii`` or ``.nii.gz``; missing folders are created.
        array: Array of shape ``geometry.shape``, with an optional last axis of ensemble members.
        geometry: Geometry of the source.
        dtype: ``uint8`` for label maps, which have to be whole numbers in [0, 255] and are
            rounded to them; ``float32`` for probability, variance and entropy.
        description: Text for the header, up to 79 ASCII characters.
        limits: Least and greatest allowed value; values outside by rounding are clipped. They are
            the header's display range (``cal_min``, ``cal_max``), too, so that a colour stands for
            the same value in every case. None: the header has no display range.
        segments: Classes of a label map; their names and colours go into a header extension
            (:func:`~medsegdiff.writers.label_table.caret_extension`).

    Raises:
        ValueError: the shape or the values are not allowed.
    """
    values = _as_dtype(array, dtype, limits)
    header = nib.Nifti1Header()
    header.set_data_dtype(values.dtype)
    values = _with_geometry_shape(values, geometry)
    header.set_data_shape(values.shape)
    _set_forms(header, geometry)
    header.set_xyzt_units("mm")
    header["descrip"] = description.encode("ascii", "replace")[:79]
    if limits:
        header["cal_min"], header["cal_max"] = limits
    if segments:
        volumes = int(np.prod(values.shape[3:]))
        table = nib.nifti1.Nifti1Extension(CARET, caret_extension(segments, volumes))
        header.extensions.append(table)
    # An image created without an affine keeps the header's forms and codes unchanged.
    image = nib.Nifti1Image(values, None, header)
    with written_aside(path) as aside:
        nib.save(image, aside)


def _with_geometry_shape(values: NDArray[np.generic], geometry: Geometry) -> NDArray[np.generic]:
    """Check the spatial axes; members become NIfTI's fourth axis, also for a 2D source."""
    n = len(geometry.shape)
    if values.shape[:n] != geometry.shape or values.ndim > n + 1:
        raise ValueError(
            f"array must have shape {geometry.shape}, or that and an axis of members; "
            f"got {values.shape}"
        )
    if n == 2 and values.ndim == 3:
        return values[:, :, None, :]
    return values


def _as_dtype(
    array: NDArray[np.generic],
    dtype: Literal["uint8", "float32"],
    limits: tuple[float, float] | None,
) -> NDArray[np.generic]:
    """Check the values, then round or clip them into ``dtype``."""
    low, high = limits or ((0, 255) if dtype == "uint8" else (-np.inf, np.inf))
    values = np.asarray(array)
    least, most = (values.min(), values.max()) if values.size else (low, high)
    if values.size and not np.isfinite([least, most]).all():
        raise ValueError("array must be finite; it holds NaN or infinity")
    if least < low - ROUNDING or most > high + ROUNDING:
        raise ValueError(f"array must lie in [{low}, {high}]; got {least:g} to {most:g}")
    if values.dtype == dtype and low <= least and most <= high:
        return values  # unchanged: avoids a copy of a large array
    if dtype == "float32":
        return np.clip(values, low, high).astype(np.float32)
    whole = np.rint(values)
    if np.abs(values - whole).max(initial=0.0) > ROUNDING:
        raise ValueError("a label map must hold whole numbers; got fractions")
    return whole.astype(np.uint8)


def _set_forms(header: nib.Nifti1Header, geometry: Geometry) -> None:
    """Restore the source's forms, or store the affine in both."""
    if geometry.sform is None or geometry.qform is None:
        header.set_sform(geometry.affine, SCANNER)
        header.set_qform(geometry.affine, SCANNER)
        if not np.allclose(header.get_qform(), geometry.affine, atol=1e-3):
            header["qform_code"] = 0  # a quaternion cannot hold a shear: mark the qform as unset
        return
    header.set_sform(geometry.sform[0], geometry.sform[1])
    header.set_qform(geometry.qform[0], geometry.qform[1])
