"""Label maps and mean probabilities -> DICOM SEG objects that refer to their source images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes

from medsegdiff import __version__
from medsegdiff.files import written_aside
from medsegdiff.types import Geometry, InputError
from medsegdiff.writers.segments import Segment

SERIES_NUMBERS = {"BINARY": 9001, "FRACTIONAL": 9002}
_SUBJECT = "the image"  # of errors: its files and folders may be called after the patient
_TOLERANCE = 0.25  # voxels between a pixel's place by its own header and by the array's affine
_ROUNDING = 1e-3  # how far a probability may lie outside of [0, 1]
_TYPE_2 = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate",
           "StudyTime", "AccessionNumber", "ReferringPhysicianName")  # fmt: skip

Kind = Literal["BINARY", "FRACTIONAL"]
Array = NDArray[Any]


def write_binary_seg(
    path: str | Path, label_map: Array, geometry: Geometry, segments: Sequence[Segment]
) -> None:
    """Writes a label map as a BINARY SEG, one segment a class, frames without mask left out.

    Args:
        path: ends in ``.dcm``; missing folders are created.
        label_map: ``geometry.shape``, whole numbers; values without a segment are background.
        geometry: of a DICOM series, its files in ``sources``.
        segments: the classes of the label map; they become segments 1, 2, ...

    Raises:
        InputError: the source is not DICOM, lacks what a SEG has to refer to, or does not lie
            where the geometry says; or highdicom is not installed.
        ValueError: if the shape is not that of the geometry.
    """
    numbers = np.zeros(256, dtype=np.uint8)
    for number, segment in enumerate(segments, start=1):
        numbers[segment.value] = number
    _write(path, numbers[label_map], geometry, segments, "BINARY")


def write_fractional_seg(
    path: str | Path, means: Array, geometry: Geometry, segments: Sequence[Segment]
) -> None:
    """Writes mean probabilities as a FRACTIONAL SEG of type PROBABILITY, in steps of 1/255.

    Args:
        path: ends in ``.dcm``; missing folders are created.
        means: (classes, ``*geometry.shape``) in [0, 1], in the order of ``segments``.
        geometry: of a DICOM series, its files in ``sources``.
        segments: the foreground classes.

    Raises:
        InputError: as :func:`write_binary_seg`.
        ValueError: shape or values are not as said.
    """
    if len(means) != len(segments):
        raise ValueError(
            f"means must have {len(segments)} classes in its first axis; got {len(means)}"
        )
    if not (means.min() >= -_ROUNDING and means.max() <= 1.0 + _ROUNDING):
        raise ValueError(f"means must lie in [0, 1]; got {means.min():g} to {means.max():g}")
    shares = np.moveaxis(np.clip(means, 0.0, 1.0), 0, -1).astype(np.float32)
    _write(path, shares, geometry, segments, "FRACTIONAL")


def _write(
    path: str | Path, array: Array, geometry: Geometry, segments: Sequence[Segment], kind: Kind
) -> None:
    """Checks, brings the array into the instances' order, and writes."""
    n = len(geometry.shape)
    if array.shape[:n] != geometry.shape:
        raise ValueError(f"array must have shape {geometry.shape}; got {array.shape[:n]}")
    instances = [_read_instance(file) for file in geometry.sources]
    if not instances:
        raise not_dicom(_SUBJECT)
    frames = _frames(array[:, :, None] if n == 2 else array, geometry, instances)
    try:
        seg = _segmentation(instances, frames, segments, kind)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # an error of a value shows the value, which may be the patient's
        named = isinstance(error, AttributeError | KeyError)
        raise InputError(
            _SUBJECT,
            f"a SEG cannot refer to this series ({error if named else 'a header is not valid'})",
            "Choose --format nifti or nrrd",
        ) from error
    with written_aside(path) as aside:
        seg.save_as(aside)


def _segmentation(
    instances: Sequence[Any], frames: Array, segments: Sequence[Segment], kind: Kind
) -> Any:
    """The SEG object of frames (instances, rows, columns[, classes])."""
    highdicom = _highdicom()
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="medsegdiff", version=__version__, family=codes.cid7162.ArtificialIntelligence
    )
    return highdicom.seg.Segmentation(
        source_images=instances,
        pixel_array=frames,
        segmentation_type=kind,
        segment_descriptions=[
            _description(number, segment, algorithm)
            for number, segment in enumerate(segments, start=1)
        ],
        series_instance_uid=highdicom.UID(),
        series_number=SERIES_NUMBERS[kind],
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="medsegdiff",
        manufacturer_model_name="medsegdiff",
        software_versions=__version__,
        device_serial_number="0",
        content_label="SEGMENTATION" if kind == "BINARY" else "PROBABILITY",
        series_description="Segmentation" if kind == "BINARY" else "Mean probability",
    )


def _highdicom() -> Any:
    try:
        import highdicom
    except ModuleNotFoundError as error:
        raise InputError(
            "--format dicom-seg",
            "needs the package highdicom, which is not installed",
            "Install it: pip install 'medsegdiff[dicom-seg]'",
        ) from error
    return highdicom


def not_dicom(subject: object) -> InputError:
    """The error of a SEG that is wanted of something other than DICOM images."""
    return InputError(
        subject,
        "a DICOM SEG refers to the DICOM images it was made from, and this is none",
        "Choose --format nifti or nrrd, or give the DICOM series",
    )


def _read_instance(file: Path) -> Any:
    """The header of a source image, with the attributes that a SEG copies, empty where missing."""
    try:
        instance = pydicom.dcmread(file, stop_before_pixels=True)
    except InvalidDicomError:
        raise not_dicom(_SUBJECT) from None
    for keyword in _TYPE_2:
        if keyword not in instance:
            setattr(instance, keyword, None)
    if not instance.get("SpecificCharacterSet"):
        instance.pop("SpecificCharacterSet", None)  # highdicom reads an empty one as a wrong one
    return instance


def _description(number: int, segment: Segment, algorithm: Any) -> Any:
    """A segment in DICOM's words."""
    highdicom = _highdicom()
    red, green, blue = (round(255 * part) for part in segment.colour)
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name[:64],
        segmented_property_category=highdicom.sr.CodedConcept(*segment.category),
        segmented_property_type=highdicom.sr.CodedConcept(*segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        tracking_uid=highdicom.UID(),
        tracking_id=f"medsegdiff-{number}",
        display_color=highdicom.color.CIELabColor.from_rgb(red, green, blue),
    )


def _frames(array: Array, geometry: Geometry, instances: Sequence[Any]) -> Array:
    """The array's values at every instance's pixels: (instances, rows, columns[, classes]).

    Whatever way the array's axes run, each pixel is found by its place in the world.
    """
    to_voxel = np.linalg.inv(geometry.affine)[:3]
    frames, covered = [], np.zeros(array.shape[:3], dtype=bool)
    for instance in instances:
        voxels = _voxels(instance, to_voxel)
        index = np.rint(voxels).astype(np.intp)
        far = np.abs(voxels - index).max() > _TOLERANCE
        if far or index.min() < 0 or (index.max(axis=(1, 2)) >= covered.shape).any():
            raise _elsewhere()
        frames.append(array[tuple(index)])
        covered[tuple(index)] = True
    if not covered.all():
        raise _elsewhere()
    return np.stack(frames)


def _voxels(instance: Any, to_voxel: Array) -> Array:
    """Voxel coordinates (3, rows, columns) of an instance's pixels (DICOM PS3.3, C.7.6.2.1.1)."""
    along_row, along_column = np.array(instance.ImageOrientationPatient, float).reshape(2, 3)
    between_rows, between_columns = map(float, instance.PixelSpacing)
    row, column = np.indices((instance.Rows, instance.Columns))
    lps = (
        np.array(instance.ImagePositionPatient, float)[:, None, None]
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
