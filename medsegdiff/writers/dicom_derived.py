"""Common part of DICOM objects derived from images: the source, and array values at its pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff import __version__
from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.errors import InputError, needs_extra
from medsegdiff.core.types import Geometry
from medsegdiff.writers.dicom_source import (
    OTHER_FORMATS,
    SUBJECT,
    read_sources,
    without_optional_fields,
)

EQUIPMENT = {
    "manufacturer": "medsegdiff",
    "manufacturer_model_name": "medsegdiff",
    "software_versions": __version__,
    "device_serial_number": "0",
}
"""Equipment that made the object, as arguments of highdicom."""

_TOLERANCE = 0.25  # voxels, between a pixel's position by its own header and by the array's affine
_ODD = (AttributeError, LookupError, TypeError, ValueError)
"""Errors that highdicom and pydicom raise for a header that is not valid."""


_ALWAYS_TOLD = {
    "SpacingBetweenSlices",
    "SliceThickness",
    "patient and study",
}  # though no field of the object

Array = NDArray[Any]
Plane = tuple[Array, Array, Array]
"""Position (3,), row and column directions (2, 3), spacing (2,) between rows and columns in mm."""


def write_derived(
    path: str | Path,
    array: Array,
    geometry: Geometry,
    make: Callable[[Sequence[Any], Array], Any],
) -> tuple[str, ...]:
    """Write a DICOM object that refers, frame by frame, to the images an array was made from.

    Args:
        path: Path of the file, ending in ``.dcm``; missing folders are created.
        array: Array (``*geometry.shape``, ...); further axes are kept.
        geometry: Geometry of a DICOM series with its files in ``sources``: one per slice, or one
            multi-frame file.
        make: Function (source images, values (frames, rows, columns, ...)) -> object to write. The
            values are in the order of the source's frames: file by file, or frame by frame of the
            single file.

    Returns:
        Notes on fields of the source that were not valid, and what became of them.

    Raises:
        InputError: the source is not DICOM, lacks attributes that the object must refer to, or its
            position contradicts the geometry.
        ValueError: the shape differs from that of the geometry.
    """
    return write_all_derived(
        array, geometry, lambda instances, frames: [(Path(path), make(instances, frames))]
    )


def write_all_derived(
    array: Array,
    geometry: Geometry,
    make: Callable[[Sequence[Any], Array], Iterable[tuple[Path, Any]]],
) -> tuple[str, ...]:
    """Write several DICOM objects as :func:`write_derived` writes one.

    Args:
        array: Array (``*geometry.shape``, ...); further axes are kept.
        geometry: Geometry as for :func:`write_derived`.
        make: Function (source images, values of their frames) -> paths with objects to write.

    Returns:
        Notes, as :func:`write_derived`.

    Raises:
        InputError: as :func:`write_derived`; objects that were written before stay.
        ValueError: the shape differs from that of the geometry.
    """
    n = len(geometry.shape)
    if array.shape[:n] != geometry.shape:
        raise ValueError(f"array must have shape {geometry.shape}; got {array.shape[:n]}")
    try:
        instances, mended = read_sources(geometry.sources)
        frames = _frames(array[:, :, None] if n == 2 else array, geometry, instances)
        try:
            written = _save(make(instances, frames))
        except _ODD:
            without_optional_fields(instances)
            written = _save(make(instances, frames))
            mended["patient and study"] = "not all valid, only names and identifiers are kept"
    except _ODD as error:
        # the library's message may show the value of an attribute, which may name the patient
        why = error if isinstance(error, AttributeError | KeyError) else "a header is not valid"
        rule = f"a DICOM object cannot refer to this series ({why})"
        raise InputError(SUBJECT, rule, OTHER_FORMATS) from error
    return tuple(
        f"DICOM objects: {field} of the images is {what}"
        for field, what in mended.items()
        if field in written or field in _ALWAYS_TOLD
    )


def _save(objects: Iterable[tuple[Path, Any]]) -> set[str]:
    """Write the objects; the keywords of their fields."""
    keywords: set[str] = set()
    for path, derived in objects:
        with written_aside(path) as aside:
            derived.save_as(aside)
        keywords |= {element.keyword for element in derived}
    return keywords


def highdicom() -> Any:
    """The library highdicom, imported when it is needed.

    Raises:
        InputError: highdicom is not installed.
    """
    with needs_extra("a DICOM format", "highdicom", "dicom-seg"):
        import highdicom
    return highdicom


def _frames(array: Array, geometry: Geometry, instances: Sequence[Any]) -> Array:
    """The array's values at the pixels of every frame: (frames, rows, columns, ...).

    Pixels are matched by their position in the world, whatever the orientation of the array's axes.
    """
    to_voxel = np.linalg.inv(geometry.affine)[:3]
    frames, covered = [], np.zeros(array.shape[:3], dtype=bool)
    for instance in instances:
        for plane in planes_of(instance):
            voxels = _voxels(plane, (int(instance.Rows), int(instance.Columns)), to_voxel)
            index = np.rint(voxels).astype(np.intp)
            far = np.abs(voxels - index).max() > _TOLERANCE
            if far or index.min() < 0 or (index.max(axis=(1, 2)) >= covered.shape).any():
                raise _elsewhere()
            if covered[tuple(index)].any():
                raise _twice()
            frames.append(array[tuple(index)])
            covered[tuple(index)] = True
    if not covered.all():
        raise _elsewhere()
    return np.stack(frames)


def planes_of(instance: Any) -> list[Plane]:
    """The plane of each frame; a single-frame image has one (DICOM PS3.3, C.7.6.2, C.7.6.16.2)."""
    if "PerFrameFunctionalGroupsSequence" not in instance:
        return [_plane(instance, instance, instance)]
    shared = instance.SharedFunctionalGroupsSequence[0]

    def group(frame: Any, name: str) -> Any:
        return (frame if name in frame else shared)[name].value[0]

    return [
        _plane(
            group(frame, "PlanePositionSequence"),
            group(frame, "PlaneOrientationSequence"),
            group(frame, "PixelMeasuresSequence"),
        )
        for frame in instance.PerFrameFunctionalGroupsSequence
    ]


def _plane(position: Any, orientation: Any, measures: Any) -> Plane:
    return (
        np.array(position.ImagePositionPatient, float),
        np.array(orientation.ImageOrientationPatient, float).reshape(2, 3),
        np.array(measures.PixelSpacing, float),
    )


def _voxels(plane: Plane, size: tuple[int, int], to_voxel: Array) -> Array:
    """Voxel coordinates (3, rows, columns) of a plane's pixels (DICOM PS3.3, C.7.6.2.1.1)."""
    position, (along_row, along_column), (between_rows, between_columns) = plane
    row, column = np.indices(size)
    lps = (
        position[:, None, None]
        + (along_column * between_rows)[:, None, None] * row
        + (along_row * between_columns)[:, None, None] * column
    )
    ras = np.stack([-lps[0], -lps[1], lps[2], np.ones_like(lps[0])])
    return np.einsum("vw,wrc->vrc", to_voxel, ras)


def _elsewhere() -> InputError:
    return InputError(
        SUBJECT,
        "the DICOM images do not lie on the segmentation's grid, slice by slice",
        OTHER_FORMATS,
    )


def _twice() -> InputError:
    return InputError(
        SUBJECT,
        "holds several images of one slice, so a DICOM object cannot refer to the right one",
        OTHER_FORMATS,
    )
