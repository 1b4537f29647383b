"""The files of a segmented case, as the documentation lists them."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medsegdiff.calibration.fitted import ClassGuarantee
from medsegdiff.core.types import Geometry, OutputFormat
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.dicom import Series
from medsegdiff.data.manifest import class_slug
from medsegdiff.segmentation.segmented_case import SegmentedCase
from medsegdiff.viz.pictures import save_png, three_planes
from medsegdiff.writers.dicom_derived import not_dicom
from medsegdiff.writers.dicom_seg import write_binary_seg, write_fractional_seg
from medsegdiff.writers.label_table import write_colour_table
from medsegdiff.writers.nifti import write_nifti
from medsegdiff.writers.nrrd import write_seg_nrrd
from medsegdiff.writers.parametric_map import write_variance_map
from medsegdiff.writers.segments import Algorithm, Segment

ENDINGS = (
    "_run.json",
    "_seg.nii.gz",
    "_seg.ctbl",
    "_mean_*.nii.gz",
    "_variance_*.nii.gz",
    "_entropy.nii.gz",
    "_members.nii.gz",
    "_anchor.nii.gz",
    "_inner_*.nii.gz",
    "_outer_*.nii.gz",
    "_seg.seg.nrrd",
    "_seg.dcm",
    "_mean.dcm",
    "_variance_*.dcm",
    "_difference.nii.gz",
    "_counterfactual*.nii.gz",
    "_preview.png",
)
"""Patterns of all files of a case, behind its name."""


def check_formats(given: CaseInput, formats: Sequence[OutputFormat]) -> None:
    """Refuse, before any work is done, a format that the input does not allow.

    Raises:
        InputError: a DICOM SEG is wanted of an image that is not DICOM.
    """
    if "dicom-seg" in formats and not all(isinstance(one, Series) for one in given.image):
        raise not_dicom(given.id)


def remove_case(name: str, folder: Path) -> None:
    """Remove what a former run wrote of a case, its record first, and nothing else."""
    for ending in ENDINGS:
        for path in folder.glob(glob.escape(name) + ending):
            path.unlink()


def write_case(
    case: SegmentedCase,
    name: str,
    folder: Path,
    segments: Sequence[Segment],
    algorithm: Algorithm,
    formats: Sequence[OutputFormat],
    save_members: bool,
    guarantee: Mapping[str, ClassGuarantee],
) -> None:
    """Write masks, maps and preview of one case to ``folder``, each complete or not at all.

    Args:
        case: its maps.
        name: of its files.
        folder: that they go to.
        segments: the foreground classes.
        algorithm: what has drawn them.
        formats: of the masks and maps.
        save_members: write each member's mask, and the anchor's if there is one.
        guarantee: gives each class, as in file names, its inner and outer mask; none if empty.

    Raises:
        InputError: a format that this input or installation does not allow.
    """
    if "dicom-seg" in formats:
        _write_dicom(case, name, folder, segments, algorithm)
    if "nrrd" in formats:
        write_seg_nrrd(folder / f"{name}_seg.seg.nrrd", case.mask, case.geometry, segments)
    if "nifti" in formats:
        _write_maps(case, name, folder, segments)
    if save_members:
        members = np.moveaxis(case.members, 0, -1)
        _write_labels(folder / f"{name}_members.nii.gz", members, case.geometry, segments)
        case.storage.release()
        if case.anchor is not None:
            _write_labels(folder / f"{name}_anchor.nii.gz", case.anchor, case.geometry, segments)
    if guarantee:
        _write_guarantee(case, name, folder, segments, guarantee)
    save_png(_preview(case, name, segments), folder / f"{name}_preview.png")


def _write_dicom(
    case: SegmentedCase,
    name: str,
    folder: Path,
    segments: Sequence[Segment],
    algorithm: Algorithm,
) -> None:
    """Mask and mean as SEG, the variance of each class as a parametric map."""
    geometry = case.geometry
    write_binary_seg(folder / f"{name}_seg.dcm", case.mask, geometry, segments, algorithm)
    means = case.mean[[segment.value for segment in segments]]
    write_fractional_seg(folder / f"{name}_mean.dcm", means, geometry, segments, algorithm)
    for segment in segments:
        path = folder / f"{name}_variance_{class_slug(segment.name)}.dcm"
        write_variance_map(path, case.variance[segment.value], geometry, segment)


def _write_maps(case: SegmentedCase, name: str, folder: Path, segments: Sequence[Segment]) -> None:
    _write_labels(folder / f"{name}_seg.nii.gz", case.mask, case.geometry, segments)
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
            _write_labels(path, mask, case.geometry, [inside])


def _write_labels(path: Path, array: Any, geometry: Geometry, segments: Sequence[Segment]) -> None:
    text = ", ".join(["0 background", *(f"{one.value} {one.name}" for one in segments)])
    write_nifti(path, array, geometry, dtype="uint8", description=text, segments=segments)


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
