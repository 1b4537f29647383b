"""Common part of DICOM objects derived from images: the source, and array values at its pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from medsegdiff import __version__
from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.errors import InputError, needs_extra
from medsegdiff.core.types import Geometry

EQUIPMENT = {
    "manufacturer": "medsegdiff",
    "manufacturer_model_name": "medsegdiff",
    "software_versions": __version__,
    "device_serial_number": "0",
}
"""Equipment that made the object, as arguments of highdicom."""

_SUBJECT = "the image"  # in errors; names of files and folders may be the patient's name
_TOLERANCE = 0.25  # voxels, between a pixel's position by its own header and by the array's affine
_TYPE_2 = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate",
           "StudyTime", "AccessionNumber", "ReferringPhysicianName")  # fmt: skip


Array = NDArray[Any]
Plane = tuple[Array, Array, Array]
"""Position (3,), row and column directions (2, 3), spacing (2,) between rows and columns in mm."""


def write_derived(
    path: str | Path,
    array: Array,
    geometry: Geometry,
    make: Callable[[Sequence[Any], Array], Any],
) -> None:
    """Write a DICOM object that refers, frame by frame, to the images an array was made from.

    Args:
        path: Path of the file, ending in ``.dcm``; missing folders are created.
        array: Array (``*geometry.shape``, ...); further axes are kept.
        geometry: Geometry of a DICOM series with its files in ``sources``: one per slice, or one
            multi-frame file.
        make: Function (source images, values (frames, rows, columns, ...)) -> object to write. The
            values are in the order of the source's frames: file by file, or frame by frame of the
            single file.

    Raises:
        InputError: the source is not DICOM, lacks attributes that the object must refer to, or its
            position contradicts the geometry.
        ValueError: the shape differs from that of the geometry.
    """
    n = len(geometry.shape)
    if array.shape[:n] != geometry.shape:
        raise ValueError(f"array must have shape {geometry.shape}; got {array.shape[:n]}")
    instances = [_read_instance(file) for file in geometry.sources]
    if not instances:
        raise not_dicom(_SUBJECT)
    try:
        frames = _frames(array[:, :, None] if n == 2 else array, geometry, instances)
        derived = make(instances, frames)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # the library's message may show the value of an attribute, which may name the patient
        why = error if isinstance(error, AttributeError | KeyError) else "a header is not valid"
        raise InputError(
            _SUBJECT,
            f"a DICOM object cannot refer to this series ({why})",
            "Choose --format nifti or nrrd",
        ) from error
    with written_aside(path) as aside:
        derived.save_as(aside)


def highdicom() -> Any:
    """The library highdicom, imported when it is needed.

    Raises:
        InputError: highdicom is not installed.
    """
    with needs_extra("--format dicom-seg", "highdicom", "dicom-seg"):
        import highdicom
    return highdicom


def not_dicom(subject: object) -> InputError:
    """The error for a DICOM object that is requested for an input other than DICOM images."""
    return InputError(
        subject,
        "a DICOM SEG refers to the DICOM images it was made from; this input is not DICOM",
        "Choose --format nifti or nrrd, or give the DICOM series",
    )


def _read_instance(file: Path) -> Any:
    """The header of a source image; attributes to copy are added, empty, where missing."""
    try:
        instance = pydicom.dcmread(file, stop_before_pixels=True)
    except InvalidDicomError:
        raise not_dicom(_SUBJECT) from None
    for keyword in _TYPE_2:
        if keyword not in instance:
            setattr(instance, keyword, None)
    if not instance.get("SpecificCharacterSet"):
        instance.pop("SpecificCharacterSet", None)  # highdicom refuses an empty one
    if "PerFrameFunctionalGroupsSequence" in instance:
        _share_plane(instance)
    return instance


def _share_plane(instance: Any) -> None:
    """Copy the orientation and spacing of the first frame to the place shared by all frames.

    highdicom reads them only there. Pixels are placed by each frame's own values, so that a
    difference between frames is still detected.
    """
    shared = instance.SharedFunctionalGroupsSequence[0]
    first = instance.PerFrameFunctionalGroupsSequence[0]
    for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if name not in shared and name in first:
            setattr(shared, name, first[name].value)


def _frames(array: Array, geometry: Geometry, instances: Sequence[Any]) -> Array:
    """The array's values at the pixels of every frame: (frames, rows, columns, ...).

    Pixels are matched by their position in the world, whatever the orientation of the array's axes.
    """
    to_voxel = np.linalg.inv(geometry.affine)[:3]
    frames, covered = [], np.zeros(array.shape[:3], dtype=bool)
    for instance in instances:
        for plane in _planes(instance):
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


def _planes(instance: Any) -> list[Plane]:
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
        _SUBJECT,
        "the DICOM images do not lie on the segmentation's grid, slice by slice",
        "Segment the series as it is, or choose --format nifti or nrrd",
    )


def _twice() -> InputError:
    return InputError(
        _SUBJECT,
        "holds several images of one slice, so a DICOM object cannot refer to the right one",
        "Choose --format nifti or nrrd",
    )
