"""Every metric of one segmented case."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.data.manifest import Case, Manifest
from medsegdiff.evaluation import calibration, metrics, sample_sets, uncertainty
from medsegdiff.evaluation.calibration import Reliability
from medsegdiff.evaluation.files import Prediction, foreground, read_prediction, read_reference
from medsegdiff.evaluation.guarantee import case_guarantee
from medsegdiff.types import Geometry

ByClass = dict[str, float]
"""Class (as in file names) -> value; with ``mean`` over the classes. NaN is undefined."""

SAMPLE_SETS = ("ged2", "hm_iou", "d_max", "diversity", "rater_diversity")
CALIBRATION = ("ece", "ece_roi", "brier", "nll")
UNCERTAINTY = ("uncertainty_error_auroc", "uncertainty_error_correlation")


@dataclass(eq=False)
class CaseResult:
    """All figures of one case.

    Attributes:
        case: its name.
        patient: whom it is of.
        values: metric -> class -> value.
        present: class -> whether the reference has any voxel of it.
        uncertainty: class -> summed variance over expected volume.
        members_dice: class -> mean Dice of the members by themselves; empty without members.
        anchor_dice: class -> Dice of the deterministic pass; empty without one.
        maps_auroc: "variance" (summed over classes) and "entropy" -> AUROC for any wrong voxel.
        reliability: class -> bins over the whole image, and over the region of interest.
        guarantee: figure -> class -> value, see ``guarantee.case_guarantee``; may be empty.
        run: what ``<case>_run.json`` says.
    """

    case: str
    patient: str
    values: dict[str, ByClass]
    present: dict[str, bool]
    uncertainty: ByClass = field(default_factory=dict)
    members_dice: ByClass = field(default_factory=dict)
    anchor_dice: ByClass = field(default_factory=dict)
    maps_auroc: dict[str, float] = field(default_factory=dict)
    reliability: dict[str, tuple[Reliability, Reliability]] = field(default_factory=dict)
    guarantee: dict[str, ByClass] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)


def evaluate_case(
    case: Case, folder: Path, manifest: Manifest, *, tolerance_mm: float = 1.0
) -> CaseResult:
    """Compare one segmented case with its reference.

    With several raters the hard reference is the class that more than half of them chose, the
    soft one (Brier score, likelihood) their share, and the region of interest starts from the
    union of their masks.

    Args:
        case: with at least one label.
        folder: that holds the files of the segmented case.
        manifest: that the case is from.
        tolerance_mm: of the surface Dice.

    Raises:
        InputError: a file of the case is missing, broken, or of another grid.
    """
    classes = foreground(manifest)
    readings, geometry = read_reference(case, manifest)
    prediction = read_prediction(folder, case.id, classes, geometry)
    hard = majority(readings, classes)
    result = CaseResult(case.id, case.patient, {}, {}, run=prediction.run)
    for value, slug in classes.items():
        reference, mean = hard == value, prediction.mean.get(slug)
        result.present[slug] = bool(reference.any())
        if mean is not None:
            result.reliability[slug] = _bins(mean, readings == value, reference)
        for name, number in {
            **_mask_metrics(prediction.seg == value, reference, geometry, tolerance_mm),
            **_calibration(mean, readings == value, result.reliability.get(slug)),
            **_uncertainty(prediction, value, slug, reference),
        }.items():
            result.values.setdefault(name, {})[slug] = number
    for by_class in result.values.values():
        by_class["mean"] = mean_defined(list(by_class.values()))
    _add_sample_sets(result, prediction, readings, classes, manifest)
    _add_comparisons(result, prediction, hard, classes)
    result.guarantee = case_guarantee(prediction, hard, classes, geometry)
    return result


def majority(readings: NDArray[np.uint8], classes: dict[int, str]) -> NDArray[np.uint8]:
    """(*shape) class that more than half of the raters (M, *shape) chose, else background."""
    hard = np.zeros(readings.shape[1:], dtype=np.uint8)
    for value in classes:
        hard[2 * np.count_nonzero(readings == value, axis=0) > len(readings)] = value
    return hard


def mean_defined(values: list[float] | NDArray[np.float64]) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    array = np.asarray(values, dtype=np.float64)
    defined = array[~np.isnan(array)]
    return float(defined.mean()) if defined.size else float("nan")


def _mask_metrics(
    p: NDArray[np.bool_], r: NDArray[np.bool_], geometry: Geometry, tolerance_mm: float
) -> ByClass:
    return {
        **metrics.overlap(p, r),
        "hd95_mm": metrics.hd95_mm(p, r, geometry.spacing),
        "surface_dice": metrics.surface_dice(p, r, geometry.spacing, tolerance_mm),
    }


def _bins(
    mean: NDArray[np.float32], raters: NDArray[np.bool_], reference: NDArray[np.bool_]
) -> tuple[Reliability, Reliability]:
    """Over the whole image, and over the region of interest."""
    region = calibration.region_of_interest(np.any(raters, axis=0))
    return (
        calibration.reliability(mean, reference),
        calibration.reliability(mean, reference, region),
    )


def _calibration(
    mean: NDArray[np.float32] | None,
    raters: NDArray[np.bool_],
    bins: tuple[Reliability, Reliability] | None,
) -> ByClass:
    if mean is None or bins is None:
        return dict.fromkeys(CALIBRATION, float("nan"))
    soft = raters.mean(axis=0)
    return {
        "ece": bins[0].ece,
        "ece_roi": bins[1].ece,
        "brier": calibration.brier(mean, soft),
        "nll": calibration.nll(mean, soft),
    }


def _uncertainty(
    prediction: Prediction, value: int, slug: str, reference: NDArray[np.bool_]
) -> ByClass:
    variance = prediction.variance.get(slug)
    if variance is None:
        return dict.fromkeys(UNCERTAINTY, float("nan"))
    wrong = (prediction.seg == value) != reference
    return {
        "uncertainty_error_auroc": uncertainty.error_auroc(variance, wrong),
        "uncertainty_error_correlation": uncertainty.error_correlation(variance, wrong),
    }


def _add_sample_sets(
    result: CaseResult,
    prediction: Prediction,
    readings: NDArray[np.uint8],
    classes: dict[int, str],
    manifest: Manifest,
) -> None:
    """Where raters and members are several; a data set of planes is judged plane by plane.

    Planes that no rater marked are left out, as the literature on LIDC does.
    """
    if manifest.raters < 2:
        return
    names = ("mean", *classes.values())
    undefined = {name: dict.fromkeys(names, float("nan")) for name in SAMPLE_SETS}
    result.values.update(undefined)
    if prediction.members is None or len(readings) < 2:
        return
    pairs = [(prediction.members, readings)]
    if manifest.spatial_dims == 2 and readings.ndim == 4:
        marked = np.flatnonzero(readings.any(axis=(0, 1, 2)))
        pairs = [(prediction.members[..., z], readings[..., z]) for z in marked]
    found = [sample_sets.sample_set_metrics(s, r, list(classes)) for s, r in pairs]
    for name in SAMPLE_SETS if found else ():
        averages = np.mean([one[name] for one in found], axis=0)
        result.values[name] = dict(zip(names, averages.tolist(), strict=True))


def _add_comparisons(
    result: CaseResult,
    prediction: Prediction,
    hard: NDArray[np.uint8],
    classes: dict[int, str],
) -> None:
    """The members and the anchor by themselves, and the uncertainty of all classes together."""
    wrong = prediction.seg != hard
    if len(prediction.variance) == len(classes):
        total = np.sum(list(prediction.variance.values()), axis=0)
        result.maps_auroc["variance"] = uncertainty.error_auroc(total, wrong)
    if prediction.entropy is not None:
        result.maps_auroc["entropy"] = uncertainty.error_auroc(prediction.entropy, wrong)
    for value, slug in classes.items():
        reference = hard == value
        if prediction.members is not None:
            scores = [metrics.dice(member == value, reference) for member in prediction.members]
            result.members_dice[slug] = float(np.mean(scores))
        if prediction.anchor is not None:
            result.anchor_dice[slug] = metrics.dice(prediction.anchor == value, reference)
        if slug in prediction.mean and slug in prediction.variance:
            maps = prediction.mean[slug], prediction.variance[slug]
            result.uncertainty[slug] = uncertainty.case_uncertainty(*maps)
    for by_class in (result.members_dice, result.anchor_dice, result.uncertainty):
        if by_class:
            by_class["mean"] = mean_defined(list(by_class.values()))
