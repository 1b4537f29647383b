"""Label maps and mean probabilities -> DICOM SEG objects that refer to their source images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes

from medsegdiff import __version__
from medsegdiff.core.types import Geometry
from medsegdiff.writers.dicom_derived import EQUIPMENT, highdicom, write_derived
from medsegdiff.writers.segments import MEDSEGDIFF, Algorithm, Code, Segment

SERIES_NUMBERS = {"BINARY": 9001, "FRACTIONAL": 9002}
_ROUNDING = 1e-3  # distance by which a probability may lie outside [0, 1]

Kind = Literal["BINARY", "FRACTIONAL"]
Array = NDArray[Any]


def write_binary_seg(
    path: str | Path,
    label_map: Array,
    geometry: Geometry,
    segments: Sequence[Segment],
    algorithm: Algorithm = MEDSEGDIFF,
) -> tuple[str, ...]:
    """Write a label map as a BINARY SEG, one segment per class, without empty frames.

    Args:
        path: Path of the file, ending in ``.dcm``; missing folders are created.
        label_map: Whole numbers of shape ``geometry.shape``; values without a segment are
            background.
        geometry: Geometry of a DICOM series with its files in ``sources``: one per slice, or one
            multi-frame file.
        segments: Classes of the label map, which become segments 1, 2, ...
        algorithm: Name and version of the model that made the masks.

    Returns:
        Notes on fields of the source that were not valid.

    Raises:
        InputError: the source is not DICOM, lacks attributes that a SEG must refer to, or its
            position contradicts the geometry; or highdicom is not installed.
        ValueError: the shape differs from that of the geometry.
    """
    numbers = np.zeros(256, dtype=np.uint8)
    for number, segment in enumerate(segments, start=1):
        numbers[segment.value] = number
    make = partial(_segmentation, segments=segments, kind="BINARY", algorithm=algorithm)
    return write_derived(path, numbers[label_map], geometry, make)


def write_fractional_seg(
    path: str | Path,
    means: Array,
    geometry: Geometry,
    segments: Sequence[Segment],
    algorithm: Algorithm = MEDSEGDIFF,
) -> tuple[str, ...]:
    """Write mean probabilities as a FRACTIONAL SEG of type PROBABILITY, in steps of 1/255.

    Args:
        path: Path of the file, ending in ``.dcm``; missing folders are created.
        means: Mean probabilities (classes, ``*geometry.shape``) in [0, 1], in the order of
            ``segments``.
        geometry: Geometry as for :func:`write_binary_seg`.
        segments: Foreground classes.
        algorithm: Name and version of the model that made the masks.

    Returns:
        Notes, as :func:`write_binary_seg`.

    Raises:
        InputError: as for :func:`write_binary_seg`.
        ValueError: the shape or the range of ``means`` is wrong.
    """
    if len(means) != len(segments):
        raise ValueError(
            f"means must have {len(segments)} classes in its first axis; got {len(means)}"
        )
    if not (means.min() >= -_ROUNDING and means.max() <= 1.0 + _ROUNDING):
        raise ValueError(f"means must lie in [0, 1]; got {means.min():g} to {means.max():g}")
    shares = np.moveaxis(np.clip(means, 0.0, 1.0), 0, -1).astype(np.float32)
    make = partial(_segmentation, segments=segments, kind="FRACTIONAL", algorithm=algorithm)
    return write_derived(path, shares, geometry, make)


def _segmentation(
    instances: Sequence[Any],
    frames: Array,
    *,
    segments: Sequence[Segment],
    kind: Kind,
    algorithm: Algorithm,
) -> Any:
    """The SEG object of frames (frames, rows, columns[, classes])."""
    hd = highdicom()
    identification = hd.AlgorithmIdentificationSequence(
        name=algorithm.name[:64],
        version=algorithm.version[:64],
        family=codes.cid7162.ArtificialIntelligence,
        source=f"medsegdiff {__version__}",
    )
    return hd.seg.Segmentation(
        source_images=instances,
        pixel_array=frames,
        segmentation_type=kind,
        segment_descriptions=[
            _description(number, segment, identification)
            for number, segment in enumerate(segments, start=1)
        ],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBERS[kind],
        sop_instance_uid=hd.UID(),
        instance_number=1,
        content_label="SEGMENTATION" if kind == "BINARY" else "PROBABILITY",
        series_description="Segmentation" if kind == "BINARY" else "Mean probability",
        **EQUIPMENT,
    )


def _description(number: int, segment: Segment, identification: Any) -> Any:
    """The description of a segment for highdicom."""
    hd = highdicom()
    red, green, blue = segment.rgb
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name[:64],
        segmented_property_category=hd.sr.CodedConcept(*segment.category),
        segmented_property_type=hd.sr.CodedConcept(*segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=identification,
        tracking_uid=hd.UID(),
        tracking_id=f"medsegdiff-{number}",
        anatomic_regions=_concepts(segment.region),
        display_color=hd.color.CIELabColor.from_rgb(red, green, blue),
    )
    if segment.modifier is not None:  # highdicom has no argument for it
        (kind,) = description.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = _concepts(segment.modifier)
    return description


def _concepts(code: Code | None) -> list[Any] | None:
    return None if code is None else [highdicom().sr.CodedConcept(*code)]
