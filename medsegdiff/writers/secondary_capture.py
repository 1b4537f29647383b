"""Pictures of a segmentation as a DICOM series, for viewers that cannot show a SEG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from medsegdiff.core.types import Geometry
from medsegdiff.viz.slice_picture import Line, Outline, magnification, slice_picture
from medsegdiff.writers.dicom_derived import (
    EQUIPMENT,
    Plane,
    highdicom,
    planes_of,
    write_all_derived,
)
from medsegdiff.writers.segments import MEDSEGDIFF, Algorithm

SERIES_NUMBER = 9020
_PATIENT = ("LR", "PA", "HF")  # the ends of DICOM's axes, the increasing one first

Array = NDArray[Any]


def write_secondary_capture(
    folder: str | Path,
    name: str,
    image: NDArray[np.uint8],
    outlines: Sequence[Outline],
    lines: Sequence[Line],
    geometry: Geometry,
    algorithm: Algorithm = MEDSEGDIFF,
) -> tuple[str, ...]:
    """Write a series of secondary captures, one of each slice, with the outlines and text burnt in.

    Each names its source image and lies where that does: a viewer can scroll both together. Small
    slices are magnified. The attributes say that it is burnt in, derived, and for research.

    Args:
        folder: Folder for the files ``<name>_0001.dcm`` and so on; made if it is missing.
        name: Beginning of the files' names.
        image: Image (``*geometry.shape``, 3) in red, green and blue.
        outlines: Outlines of masks of shape ``geometry.shape``.
        lines: Lines of text, the same on each slice.
        geometry: Geometry of a DICOM series with its files in ``sources``: one per slice, or one
            multi-frame file.
        algorithm: Name and version of the model that made the masks.

    Returns:
        Notes on fields of the source that were not valid.

    Raises:
        InputError: as for :func:`~medsegdiff.writers.dicom_derived.write_derived`; or highdicom is
            not installed.
        ValueError: the shape differs from that of the geometry.
    """
    masks = [outline.inside.astype(np.uint8)[..., None] for outline in outlines]
    make = partial(
        _captures,
        path=Path(folder) / name,
        styles=[(outline.colour, outline.dashed) for outline in outlines],
        lines=lines,
        algorithm=algorithm,
    )
    return write_all_derived(np.concatenate([image, *masks], axis=-1), geometry, make)


def _captures(
    instances: Sequence[Any],
    frames: Array,
    *,
    path: Path,
    styles: Sequence[tuple[Any, bool]],
    lines: Sequence[Line],
    algorithm: Algorithm,
) -> Iterator[tuple[Path, Any]]:
    """The objects of frames (frames, rows, columns, 3 and the masks), with their paths."""
    series = highdicom().UID()
    places = [
        (instance, number, plane)
        for instance in instances
        for number, plane in enumerate(planes_of(instance), start=1)
    ]
    for n, (frame, place) in enumerate(zip(frames, places, strict=True), start=1):
        outlines = [
            Outline(frame[..., 3 + layer] > 0, *style) for layer, style in enumerate(styles)
        ]
        picture = slice_picture(frame[..., :3], outlines, lines)
        times = magnification(*frame.shape[:2])
        capture = _capture(picture, times, *place, series=series, n=n, algorithm=algorithm)
        yield path.with_name(f"{path.name}_{n:04d}.dcm"), capture


def _capture(
    picture: Array,
    times: int,
    source: Any,
    number: int,
    plane: Plane,
    *,
    series: Any,
    n: int,
    algorithm: Algorithm,
) -> Any:
    """The object of one picture, placed where frame ``number`` of its source lies."""
    hd = highdicom()
    position, directions, spacing = plane
    capture = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=source,
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=tuple(_letter(direction) for direction in directions),
        pixel_spacing=tuple(spacing / times),
        series_instance_uid=series,
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=n,
        series_description="Segmentation, burnt in (RESEARCH)",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **EQUIPMENT,
    )
    capture.Laterality = source.get("Laterality")  # type 2C, so that it may be empty
    capture.BurnedInAnnotation = "YES"
    capture.ContentQualification = "RESEARCH"
    capture.DerivationDescription = (
        f"Outlines and volumes of an automatic segmentation by {algorithm.name} "
        f"{algorithm.version}, burnt in; magnified {times} times"
    )[:1024]
    capture.SourceImageSequence = [_reference(source, number)]
    if source.get("LossyImageCompression"):
        capture.LossyImageCompression = source.LossyImageCompression
    _place(capture, source, position, directions, spacing, times)
    return capture


def _reference(source: Any, number: int) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if "PerFrameFunctionalGroupsSequence" in source:
        item.ReferencedFrameNumber = number
    purpose = codes.DCM.SourceImageForImageProcessingOperation
    item.PurposeOfReferenceCodeSequence = [highdicom().sr.CodedConcept.from_code(purpose)]
    return item


def _place(
    capture: Any, source: Any, position: Array, directions: Array, spacing: Array, times: int
) -> None:
    """Frame of reference and plane (DICOM PS3.3, C.7.4.1 and C.7.6.2)."""
    capture.FrameOfReferenceUID = source.FrameOfReferenceUID
    capture.PositionReferenceIndicator = source.get("PositionReferenceIndicator")
    # the centre of the first small pixel, towards the corner of the first large one
    along_row, along_column = directions
    corner = along_column * spacing[0] + along_row * spacing[1]
    first = position + corner * (0.5 / times - 0.5)
    capture.ImagePositionPatient = [f"{value:.10g}" for value in first]
    capture.ImageOrientationPatient = [f"{value:.10g}" for value in directions.ravel()]
    capture.SliceThickness = source.get("SliceThickness")


def _letter(direction: Array) -> str:
    """The end of the patient's axis that a direction (3,) points to most.

    >>> _letter(np.array([0.1, -0.9, 0.0]))
    'A'
    """
    axis = int(np.abs(direction).argmax())
    return _PATIENT[axis][int(direction[axis] < 0)]
