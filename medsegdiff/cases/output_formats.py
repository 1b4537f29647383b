"""The formats of masks and maps: one table of names, writers and files.

To add a format, write its writer and add a line to ``OUTPUT_FORMATS``. The command line, its help,
the check of inputs and the removal of earlier files use this table. The writers import their
libraries when they are called, so that the command line's help is fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import UsageError, check_extra

if TYPE_CHECKING:
    from medsegdiff.calibration.fitted import ClassGuarantee
    from medsegdiff.core.types import Geometry
    from medsegdiff.data.case_input import CaseInput
    from medsegdiff.segmentation.segmented_case import SegmentedCase
    from medsegdiff.writers.segments import Algorithm, Segment

HIGHEST = 255
"""Highest value of a label map."""

Write = Callable[
    [
        "SegmentedCase",
        str,
        Path,
        "Sequence[Segment]",
        "Algorithm",
        "Mapping[str, ClassGuarantee]",
    ],
    tuple[str, ...],
]
"""Writes a case's maps: (case, name of its files, folder, foreground classes, algorithm, guarantee
of each class if one was asked for) -> notes for its record."""


@dataclass(frozen=True)
class Output:
    """A format of masks and maps.

    Attributes:
        name: Name of the format on the command line.
        write: Function that writes the files of a case, each complete or not at all.
        files: Patterns of these files, without the case's name in front.
        dicom_only: Whether the format needs DICOM images as input.
        needs: Optional package that writes it, and the extra that installs this; empty for none.
    """

    name: str
    write: Write
    files: tuple[str, ...]
    dicom_only: bool = False
    needs: tuple[str, str] | tuple[()] = ()


def _write_nifti(
    case: SegmentedCase, name: str, folder: Path, segments: Sequence[Segment], *_: Any
) -> tuple[str, ...]:
    """Write the mask with its colours, mean and variance of each class, and entropy."""
    from medsegdiff.data.manifest import class_slug
    from medsegdiff.writers.label_table import write_colour_table
    from medsegdiff.writers.nifti import write_nifti

    write_labels(folder / f"{name}_seg.nii.gz", case.mask, case.geometry, segments)
    write_colour_table(folder / f"{name}_seg.ctbl", segments)
    for segment in segments:
        for kind, maps, highest in (("mean", case.mean, 1.0), ("variance", case.variance, 0.25)):
            write_nifti(
                folder / f"{name}_{kind}_{class_slug(segment.name)}.nii.gz",
                maps[segment.value],
                case.geometry,
                dtype="float32",
                description=f"{kind} of the members' probability: {segment.name}",
                limits=(0.0, highest),
            )
            case.storage.release()
    write_nifti(
        folder / f"{name}_entropy.nii.gz",
        case.entropy,
        case.geometry,
        dtype="float32",
        description="predictive entropy in nats",
        limits=(0.0, float(np.log(len(case.mean))) + 1e-3),
    )
    case.storage.release()
    return ()


def _write_nrrd(
    case: SegmentedCase, name: str, folder: Path, segments: Sequence[Segment], *_: Any
) -> tuple[str, ...]:
    """Write the mask as a segmentation of 3D Slicer."""
    from medsegdiff.writers.nrrd import write_seg_nrrd

    mask, parts = by_place(case, segments)
    write_seg_nrrd(folder / f"{name}_seg.seg.nrrd", mask, case.geometry, parts)
    return ()


def _write_dicom(
    case: SegmentedCase,
    name: str,
    folder: Path,
    segments: Sequence[Segment],
    algorithm: Algorithm,
    *_: Any,
) -> tuple[str, ...]:
    """Write mask and mean as DICOM SEG, and the variance of each class as a parametric map."""
    from medsegdiff.data.manifest import class_slug
    from medsegdiff.writers.dicom_seg import write_binary_seg, write_fractional_seg
    from medsegdiff.writers.parametric_map import write_variance_map

    geometry = case.geometry
    seg = folder / f"{name}_seg.dcm"
    mask, parts = by_place(case, segments)
    notes = write_binary_seg(seg, mask, geometry, parts, algorithm)
    means = case.mean[[segment.value for segment in segments]]
    notes += write_fractional_seg(folder / f"{name}_mean.dcm", means, geometry, segments, algorithm)
    for segment in segments:
        path = folder / f"{name}_variance_{class_slug(segment.name)}.dcm"
        notes += write_variance_map(path, case.variance[segment.value], geometry, segment)
    return tuple(dict.fromkeys(notes))


def _write_capture(
    case: SegmentedCase,
    name: str,
    folder: Path,
    segments: Sequence[Segment],
    algorithm: Algorithm,
    guarantee: Mapping[str, ClassGuarantee],
) -> tuple[str, ...]:
    """Write pictures of all slices, with outlines and volumes, as DICOM secondary captures."""
    from medsegdiff.cases.burnt_in import grey_image, lines_of, outlines_of
    from medsegdiff.writers.secondary_capture import write_secondary_capture

    return write_secondary_capture(
        folder,
        f"{name}_capture",
        grey_image(case),
        outlines_of(case, segments, guarantee),
        lines_of(case, segments, guarantee, algorithm),
        case.geometry,
        algorithm,
    )


def by_place(
    case: SegmentedCase, segments: Sequence[Segment]
) -> tuple[NDArray[np.uint8], list[Segment]]:
    """The mask in which each class of each place is a segment of its own, such as left and right.

    Args:
        case: Segmented case.
        segments: Foreground classes.

    Returns:
        Label map (*shape) uint8, and its segments; the case's own with less than two places.
    """
    step = max(segment.value for segment in segments)
    if len(case.places) < 2 or step * len(case.places) > HIGHEST:
        return case.mask, list(segments)
    mask, found = case.mask.copy(), []
    for number, (place, box) in enumerate(case.places.items()):
        mine = case.mask[box]
        np.copyto(mask[box], mine + number * step, where=(mine > 0) & (mask[box] == mine))
        found += [
            replace(one, value=one.value + number * step, name=f"{place} {one.name}")
            for one in segments
        ]
    return mask, found


OUTPUT_FORMATS = {
    one.name: one
    for one in (
        Output(
            "nifti",
            _write_nifti,
            (
                *("_seg.nii.gz", "_seg.ctbl"),
                *("_mean_*.nii.gz", "_variance_*.nii.gz", "_entropy.nii.gz"),
            ),
        ),
        Output("nrrd", _write_nrrd, ("_seg.seg.nrrd",), needs=("slicerio", "slicer")),
        Output(
            "dicom-seg",
            _write_dicom,
            ("_seg.dcm", "_mean.dcm", "_variance_*.dcm"),
            dicom_only=True,
            needs=("highdicom", "dicom-seg"),
        ),
        Output(
            "secondary-capture",
            _write_capture,
            ("_capture_*.dcm",),
            dicom_only=True,
            needs=("highdicom", "dicom-seg"),
        ),
    )
}
"""Name -> format."""


def chosen_formats(names: Iterable[str]) -> list[Output]:
    """The formats of these names, the most demanding first.

    Raises:
        UsageError: a name is unknown.
    """
    wanted = set(names)
    unknown = sorted(wanted - set(OUTPUT_FORMATS))
    if unknown:
        rule = f"{unknown[0]!r} is not a format"
        raise UsageError("--format", rule, f"Known are {', '.join(OUTPUT_FORMATS)}")
    return [one for one in reversed(OUTPUT_FORMATS.values()) if one.name in wanted]


def check_installed(names: Iterable[str]) -> None:
    """Refuse, before any case is read, formats whose package is not installed.

    Raises:
        UsageError: a name is unknown.
        InputError: a package is missing; the message names the extra that installs it.
    """
    for one in chosen_formats(names):
        if one.needs:
            check_extra(f"--format {one.name}", *one.needs)


def check_formats(given: CaseInput, names: Iterable[str]) -> None:
    """Refuse, before any work is done, an input that allows none of the formats.

    Raises:
        UsageError: a name is unknown.
        InputError: all formats need DICOM images, and the input is something else.
    """
    from medsegdiff.data.dicom import Series
    from medsegdiff.writers.dicom_source import not_dicom

    refused = all(one.dicom_only for one in chosen_formats(names))
    if refused and not all(isinstance(one, Series) for one in given.image):
        raise not_dicom(given.id)


def write_labels(path: Path, array: Any, geometry: Geometry, segments: Sequence[Segment]) -> None:
    """Write label maps as NIfTI, with the names of the values in the header."""
    from medsegdiff.writers.nifti import write_nifti

    text = ", ".join(["0 background", *(f"{one.value} {one.name}" for one in segments)])
    write_nifti(path, array, geometry, dtype="uint8", description=text, segments=segments)
