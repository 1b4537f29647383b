"""Every metric of one segmented case."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.types import LengthUnit
from medsegdiff.data.manifest import Case, Manifest
from medsegdiff.data.predictions import (
    Prediction,
    foreground,
    known_voxels,
    majority,
    read_prediction,
    read_reference,
    without_unknown,
)
from medsegdiff.evaluation.guarantee_figures import case_guarantee
from medsegdiff.metrics import overlap as metrics
from medsegdiff.metrics import sample_sets, uncertainty
from medsegdiff.metrics.calibration_error import Reliability
from medsegdiff.metrics.class_maps import ClassMaps
from medsegdiff.metrics.means import mean_defined
from medsegdiff.metrics.table import class_figures, names_in

ByClass = dict[str, float]
"""Class (as in file names) -> value; with ``mean`` over the classes. NaN is undefined."""


@dataclass(eq=False)
class CaseResult:
    """All figures of one case.

    Attributes:
        case: Name of the case.
        patient: Patient of the case.
        values: Metric -> class -> value.
        present: Class -> whether the reference has any voxel of it.
        uncertainty: Class -> sum of the variance divided by the expected volume.
        members_dice: Class -> mean Dice of the single members; empty without members.
        anchor_dice: Class -> Dice of the deterministic pass; empty without an anchor.
        maps_auroc: Map, "variance" (summed over classes) or "entropy" -> AUROC for voxels with any
            wrong class.
        reliability: Class -> "image" and "roi" -> bins of the mean probability over the whole image
            and over the region of interest; with members, "members" -> bins of the share of the
            members' votes over the region of interest.
        planes: Number of planes that were evaluated one by one ("judged"), and of those with a
            defined S_NCC ("s_ncc"); empty unless the case is a stack of planes.
        guarantee: Figure -> class -> value, see ``guarantee_figures.case_guarantee``; may be empty.
        run: Content of ``<case>_run.json``.
        unit: Unit of lengths; pixels for a photograph whose spacing is not known.
    """

    case: str
    patient: str
    values: dict[str, ByClass]
    present: dict[str, bool]
    uncertainty: ByClass = field(default_factory=dict)
    members_dice: ByClass = field(default_factory=dict)
    anchor_dice: ByClass = field(default_factory=dict)
    maps_auroc: dict[str, float] = field(default_factory=dict)
    reliability: dict[str, dict[str, Reliability]] = field(default_factory=dict)
    planes: dict[str, int] = field(default_factory=dict)
    guarantee: dict[str, ByClass] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    unit: LengthUnit = "mm"


def evaluate_case(
    case: Case, folder: Path, manifest: Manifest, *, tolerance_mm: float = 1.0
) -> CaseResult:
    """Compare one segmented case with its reference.

    With several raters, the hard reference is the class that more than half of them chose. The soft
    reference, used for all measures of calibration, is the share of raters who chose a class. The
    region of interest is around the union of their masks.

    Args:
        case: Case with at least one label.
        folder: Folder with the files of the segmented case.
        manifest: Data set of the case.
        tolerance_mm: Tolerance of the surface Dice in millimetres.

    Raises:
        InputError: a file of the case is missing, damaged, or on another grid.
    """
    classes = foreground(manifest)
    annotations, geometry = read_reference(case, manifest)
    prediction = read_prediction(folder, case.id, classes, geometry)
    hard = majority(annotations, classes)
    known = known_voxels(annotations)
    if known is not None:
        prediction = without_unknown(prediction, known)
    result = CaseResult(case.id, case.patient, {}, {}, run=prediction.run, unit=geometry.unit)
    for value, slug in classes.items():
        members = prediction.members
        maps = ClassMaps(
            mask=prediction.seg == value,
            reference=hard == value,
            raters=annotations == value,
            spacing=geometry.spacing,
            tolerance_mm=tolerance_mm,
            mean=prediction.mean.get(slug),
            variance=prediction.variance.get(slug),
            votes=None if members is None else np.mean(members == value, axis=0),
            known=known,
            planes=_is_stack_of_planes(annotations, manifest),
        )
        result.present[slug] = bool(maps.reference.any())
        result.reliability[slug] = maps.bins
        for name, number in class_figures(maps, manifest.raters > 1).items():
            result.values.setdefault(name, {})[slug] = number
    for by_class in result.values.values():
        by_class["mean"] = mean_defined(list(by_class.values()))
    _add_sample_sets(result, prediction, annotations, classes, manifest)
    _add_comparisons(result, prediction, hard, classes, known)
    result.guarantee = case_guarantee(prediction, hard, classes, geometry, known is None)
    return result


def _is_stack_of_planes(annotations: NDArray[Any], manifest: Manifest) -> bool:
    """Whether the annotations (M, *shape) are a volume of a data set of planes."""
    return manifest.spatial_dims == 2 and annotations.ndim == 4


def _add_sample_sets(
    result: CaseResult,
    prediction: Prediction,
    annotations: NDArray[np.uint8],
    classes: dict[int, str],
    manifest: Manifest,
) -> None:
    """Add the measures of sample sets to the result; they need several raters."""
    if manifest.raters < 2:
        return
    names = ("mean", *classes.values())
    undefined = {name: dict.fromkeys(names, float("nan")) for name in names_in("sets")}
    result.values.update(undefined)
    members = prediction.members
    if members is None or len(annotations) < 2:
        return
    pairs = judged_sets(members, annotations, manifest)
    found = [sample_sets.sample_set_metrics(s, r, list(classes)) for s, r in pairs]
    for name in names_in("sets") if found else ():
        columns = zip(*(one[name] for one in found), strict=True)
        averages = (mean_defined(list(column)) for column in columns)
        result.values[name] = dict(zip(names, averages, strict=True))
    if _is_stack_of_planes(annotations, manifest):
        defined = sum(not np.isnan(one["s_ncc"][0]) for one in found)
        result.planes = {"judged": len(found), "s_ncc": defined}


def judged_sets(
    members: NDArray[np.uint8], annotations: NDArray[np.uint8], manifest: Manifest
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Pairs of members (N, ...) and annotations (M, ...) to compare with each other.

    A data set of planes is evaluated plane by plane. The many planes that neither a rater nor a
    member marked are left out, since all agree there. A plane that only a member marked is a false
    positive, and counts.
    """
    if not _is_stack_of_planes(annotations, manifest):
        return [_known_alone(members, annotations)]
    axes = (0, 1, 2)
    marked = np.flatnonzero(annotations.any(axis=axes) | members.any(axis=axes))
    pairs = (_known_alone(members[..., z], annotations[..., z]) for z in marked)
    return [(m, a) for m, a in pairs if m.size]


def _known_alone(
    members: NDArray[np.uint8], annotations: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Both as they are, or (N, V) and (M, V) of the voxels whose class is known, if not all are."""
    known = known_voxels(annotations)
    return (members, annotations) if known is None else (members[:, known], annotations[:, known])


def _add_comparisons(
    result: CaseResult,
    prediction: Prediction,
    hard: NDArray[np.uint8],
    classes: dict[int, str],
    known: NDArray[np.bool_] | None,
) -> None:
    """Add the figures of members and anchor alone, and of the uncertainty of all classes."""
    counted = ... if known is None else known
    wrong = (prediction.seg != hard)[counted]
    if len(prediction.variance) == len(classes):
        total = np.sum(list(prediction.variance.values()), axis=0)
        result.maps_auroc["variance"] = uncertainty.error_auroc(total[counted], wrong)
    if prediction.entropy is not None:
        result.maps_auroc["entropy"] = uncertainty.error_auroc(prediction.entropy[counted], wrong)
    for value, slug in classes.items():
        reference = hard == value
        if prediction.members is not None:
            scores = [metrics.dice(member == value, reference) for member in prediction.members]
            result.members_dice[slug] = float(np.mean(scores))
        if prediction.anchor is not None:
            result.anchor_dice[slug] = metrics.dice(prediction.anchor == value, reference)
        if slug in prediction.mean and slug in prediction.variance:
            maps = prediction.mean[slug][counted], prediction.variance[slug][counted]
            result.uncertainty[slug] = uncertainty.case_uncertainty(*maps)
    for by_class in (result.members_dice, result.anchor_dice, result.uncertainty):
        if by_class:
            by_class["mean"] = mean_defined(list(by_class.values()))
