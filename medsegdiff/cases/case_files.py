"""Writing and removal of the files of a segmented case, as the documentation lists them."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medsegdiff.calibration.fitted import ClassGuarantee
from medsegdiff.cases.output_formats import OUTPUT_FORMATS, chosen_formats, write_labels
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import OutputFormat
from medsegdiff.data.manifest import class_slug
from medsegdiff.segmentation.segmented_case import SegmentedCase
from medsegdiff.viz.pictures import save_png, three_planes
from medsegdiff.writers.segments import Algorithm, Segment

ENDINGS = (
    "_run.json",
    *(pattern for one in OUTPUT_FORMATS.values() for pattern in one.files),
    "_members.nii.gz",
    "_anchor.nii.gz",
    "_inner_*.nii.gz",
    "_outer_*.nii.gz",
    "_difference.nii.gz",
    "_counterfactual*.nii.gz",
    "_preview.png",
)
"""Patterns of all files of a case, without the case's name in front."""


def remove_case(name: str, folder: Path) -> None:
    """Remove the files that an earlier run wrote for a case, its record first; keep all others."""
    _remove(name, folder, ENDINGS)


def _remove(name: str, folder: Path, endings: Sequence[str]) -> None:
    for ending in endings:
        for path in folder.glob(glob.escape(name) + ending):
            path.unlink()


@dataclass
class WrittenFiles:
    """What became of the formats that were asked for.

    Attributes:
        formats: Names of those that are written.
        notes: Sentences for the case's record.
        failure: Error of one that could not be written; None if all are.
    """

    formats: list[str]
    notes: list[str]
    failure: InputError | None


def write_case(
    case: SegmentedCase,
    name: str,
    folder: Path,
    segments: Sequence[Segment],
    algorithm: Algorithm,
    formats: Sequence[OutputFormat],
    save_members: bool,
    guarantee: Mapping[str, ClassGuarantee],
    preview: bool = True,
) -> WrittenFiles:
    """Write masks, maps and preview of one case to ``folder``, each complete or not at all.

    A format that cannot be written does not cost the others.

    Args:
        case: Segmented case with its masks and maps.
        name: Name of the case, the first part of each file name.
        folder: Folder for the files.
        segments: Foreground classes.
        algorithm: Name and version of the model that made the masks.
        formats: Formats of the masks and maps.
        save_members: Whether to write each member's mask, and the anchor's if there is one.
        guarantee: Guarantee of each class (by its name in file names), from which its inner and
            outer mask are made; empty for none.
        preview: Whether the preview is written.

    Raises:
        InputError: the input or the installation allows none of the formats.
    """
    written = WrittenFiles([], [], None)
    for one in chosen_formats(formats):
        try:
            written.notes += one.write(case, name, folder, segments, algorithm, guarantee)
            written.formats.append(one.name)
        except InputError as error:
            _remove(name, folder, one.files)
            written.failure = error
            written.notes.append(f"--format {one.name} could not be written: {error}")
    if written.failure and not written.formats:
        raise written.failure
    if save_members:
        members = np.moveaxis(case.members, 0, -1)
        write_labels(folder / f"{name}_members.nii.gz", members, case.geometry, segments)
        case.storage.release()
        if case.anchor is not None:
            write_labels(folder / f"{name}_anchor.nii.gz", case.anchor, case.geometry, segments)
    if guarantee:
        _write_guarantee(case, name, folder, segments, guarantee)
    if preview:
        save_png(_preview(case, name, segments), folder / f"{name}_preview.png")
    return written


def _write_guarantee(
    case: SegmentedCase,
    name: str,
    folder: Path,
    segments: Sequence[Segment],
    guarantee: Mapping[str, ClassGuarantee],
) -> None:
    for segment in segments:
        slug = class_slug(segment.name)
        masks = np.empty_like(case.mask), np.empty_like(case.mask)
        mean = case.mean[segment.value]
        for place in case.slabs():
            masks[0][place], masks[1][place] = guarantee[slug].masks(mean[place])
        for kind, mask in zip(("inner", "outer"), masks, strict=True):
            path = folder / f"{name}_{kind}_{slug}.nii.gz"
            inside = replace(segment, value=1, name=f"{kind} {segment.name}")
            write_labels(path, mask, case.geometry, [inside])


def _preview(case: SegmentedCase, name: str, segments: Sequence[Segment]) -> Any:
    axes = "".join(nib.aff2axcodes(case.geometry.affine))
    variance = case.variance[1:].sum(axis=0)
    return three_planes(
        np.moveaxis(case.image, 0, -1),
        case.mask,
        variance if len(case.members) > 1 or variance.any() else None,
        case.geometry.spacing,
        title=name,
        labels={one.value: one.name for one in segments},
        axes=axes if len(case.geometry.shape) == 3 else "",
    )
