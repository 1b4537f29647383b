"""The table of metrics: one entry each, which reports, summaries and their wording read.

A metric of one class of a case is an entry alone, with its function. One of a set of masks is an
entry, and a key of :func:`medsegdiff.metrics.sample_sets.sample_set_metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from medsegdiff.metrics import calibration_error, overlap, uncertainty
from medsegdiff.metrics.class_maps import ClassMaps
from medsegdiff.metrics.uncertainty import PATCH

Group = Literal["masks", "sets", "calibration", "uncertainty"]

GROUPS: dict[Group, str] = {
    "masks": "Masks",
    "sets": "Sample sets and raters",
    "calibration": "Calibration",
    "uncertainty": "Uncertainty",
}
"""Groups of metrics -> their heading, in the order in which they are shown."""


@dataclass(frozen=True)
class Metric:
    """A figure of a report.

    Attributes:
        name: Key in reports.
        group: Group of metrics that it is shown in.
        heading: Heading in tables.
        meaning: Meaning in plain words.
        better: Direction of better values; None: neither, it is to be compared with another.
        unit: Unit of its values; empty without one.
        digits: Number of digits behind the point, as it is shown.
        needs: Maps of :class:`ClassMaps` without which it is undefined.
        of_class: Function of one class of a case; a missing key or NaN is undefined.
        of_cases: Function of the cases' uncertainty and risk, both (cases,).
        several_raters: Whether there have to be several raters.
    """

    name: str
    group: Group
    heading: str
    meaning: str
    better: Literal["higher", "lower"] | None
    unit: str = ""
    digits: int = 3
    needs: tuple[str, ...] = ()
    of_class: Callable[[Any], float] | None = None
    of_cases: Callable[[NDArray[Any], NDArray[Any]], float] | None = None
    several_raters: bool = False


METRICS = (
    Metric(
        "dice",
        "masks",
        "Dice",
        "Overlap: twice the shared volume over the sum of both. 1 is perfect.",
        "higher",
        of_class=lambda m: m.overlap["dice"],
    ),
    Metric(
        "iou",
        "masks",
        "IoU",
        "Overlap: shared volume over joint volume (Jaccard). Never above Dice.",
        "higher",
        of_class=lambda m: m.overlap["iou"],
    ),
    Metric(
        "precision",
        "masks",
        "Precision",
        "Share of the mask that is right.",
        "higher",
        of_class=lambda m: m.overlap["precision"],
    ),
    Metric(
        "recall",
        "masks",
        "Recall",
        "Share of the reference that was found (sensitivity).",
        "higher",
        of_class=lambda m: m.overlap["recall"],
    ),
    Metric(
        "f1",
        "masks",
        "F1",
        "Harmonic mean of precision and recall: the same number as Dice.",
        "higher",
        of_class=lambda m: m.overlap["f1"],
    ),
    Metric(
        "hd95_mm",
        "masks",
        "HD95 (mm)",
        "Distance within which 95 % of each outline lies from the other, the larger of both "
        "directions. 0 is perfect. Not defined where one mask is empty.",
        "lower",
        unit="mm",
        digits=2,
        of_class=lambda m: overlap.hd95_mm(m.mask, m.reference, m.spacing),
    ),
    Metric(
        "surface_dice",
        "masks",
        "Surface Dice",
        "Share of both surfaces that lies within the tolerance of the other. Not defined where "
        "one mask is empty.",
        "higher",
        of_class=lambda m: overlap.surface_dice(m.mask, m.reference, m.spacing, m.tolerance_mm),
    ),
    Metric(
        "ece",
        "calibration",
        "ECE, image",
        "Expected calibration error: mean gap between the probability that is stated and the "
        "frequency that is observed, over the whole image. Background makes it look good.",
        "lower",
        digits=4,
        needs=("mean",),
        of_class=lambda m: m.bins["image"].ece,
    ),
    Metric(
        "ece_roi",
        "calibration",
        "ECE, region",
        "The same within the reference and a margin around it. This is the one to look at.",
        "lower",
        needs=("mean",),
        of_class=lambda m: m.bins["roi"].ece,
    ),
    Metric(
        "ace",
        "calibration",
        "ACE, image",
        "Mean gap of the bins of probability, each of the same weight.",
        "lower",
        needs=("mean",),
        of_class=lambda m: m.bins["image"].ace,
    ),
    Metric(
        "ace_roi",
        "calibration",
        "ACE, region",
        "The same within the reference and a margin around it.",
        "lower",
        needs=("mean",),
        of_class=lambda m: m.bins["roi"].ace,
    ),
    Metric(
        "mce",
        "calibration",
        "MCE, image",
        "The largest gap of a bin of probability, however few voxels it holds.",
        "lower",
        needs=("mean",),
        of_class=lambda m: m.bins["image"].mce,
    ),
    Metric(
        "mce_roi",
        "calibration",
        "MCE, region",
        "The same within the reference and a margin around it.",
        "lower",
        needs=("mean",),
        of_class=lambda m: m.bins["roi"].mce,
    ),
    Metric(
        "members_ece_roi",
        "calibration",
        "ECE of votes, region",
        "ECE of the share of members that mark a voxel: where 80 % of them do, 80 % should be so.",
        "lower",
        needs=(
            "mean",
            "votes",
        ),
        of_class=lambda m: m.bins["members"].ece,
    ),
    Metric(
        "brier",
        "calibration",
        "Brier score",
        "Mean squared difference of probability and truth. 0 is perfect.",
        "lower",
        digits=4,
        needs=("mean",),
        of_class=lambda m: calibration_error.brier(*m.counted(m.mean, m.share)),
    ),
    Metric(
        "nll",
        "calibration",
        "NLL (nats)",
        "Negative log-likelihood of the truth. Punishes certainty in error.",
        "lower",
        unit="nats",
        digits=4,
        needs=("mean",),
        of_class=lambda m: calibration_error.nll(*m.counted(m.mean, m.share)),
    ),
    Metric(
        "uncertainty_error_auroc",
        "uncertainty",
        "Error AUROC",
        "How often a wrong voxel has more variance than a right one, over the whole image, easy"
        " background included. 0.5 is chance, 1 is perfect. Not defined where no voxel is "
        "wrong.",
        "higher",
        needs=("variance",),
        of_class=lambda m: uncertainty.error_auroc(*m.counted(m.variance, m.wrong)),
    ),
    Metric(
        "uncertainty_error_auprc",
        "uncertainty",
        "Error AUPRC",
        "Average precision of the variance in finding wrong voxels. Chance is their share, "
        "which is small; 1 is perfect. Easy background does not raise it.",
        "higher",
        needs=("variance",),
        of_class=lambda m: uncertainty.error_auprc(*m.counted(m.variance, m.wrong)),
    ),
    Metric(
        "uncertainty_error_overlap",
        "uncertainty",
        "Error overlap",
        "Dice of the wrong voxels with those above a threshold of variance, the best for the case.",
        "higher",
        needs=("variance",),
        of_class=lambda m: uncertainty.error_overlap(*m.counted(m.variance, m.wrong)),
    ),
    Metric(
        "uncertainty_error_correlation",
        "uncertainty",
        "Error correlation",
        "Pearson correlation, over voxels, of the variance with being wrong.",
        "higher",
        needs=("variance",),
        of_class=lambda m: uncertainty.correlation(*m.counted(m.variance, m.wrong)),
    ),
    Metric(
        "pavpu",
        "uncertainty",
        "PAvPU",
        "Share of small patches that are right and certain, or wrong and uncertain. Easy "
        "background makes it look good. Not defined where some voxels are to be ignored.",
        "higher",
        needs=("variance",),
        of_class=lambda m: (
            uncertainty.pavpu(m.variance, m.wrong, (PATCH, PATCH, 1) if m.planes else None)
            if m.known is None
            else float("nan")
        ),
    ),
    Metric(
        "variance_rater_correlation",
        "uncertainty",
        "Rater correlation",
        "Pearson correlation, over voxels, of the members' variance with that of the raters.",
        "higher",
        needs=("variance",),
        of_class=lambda m: uncertainty.correlation(*m.counted(m.variance, m.raters.var(axis=0))),
        several_raters=True,
    ),
    Metric(
        "aurc",
        "uncertainty",
        "AURC",
        "Mean of 1 - Dice over all shares of the cases that are kept, the most certain ones "
        "first. Lower is better.",
        "lower",
        of_cases=uncertainty.aurc,
    ),
    Metric(
        "e_aurc",
        "uncertainty",
        "E-AURC",
        "AURC less that of the best order of the cases. 0 is a perfect order.",
        "lower",
        of_cases=uncertainty.e_aurc,
    ),
    Metric(
        "ged2",
        "sets",
        "GED²",
        "Squared generalised energy distance of the samples to the raters' masks. 0 if both "
        "sets are alike; it depends on the number of samples.",
        "lower",
        several_raters=True,
    ),
    Metric(
        "hm_iou",
        "sets",
        "HM-IoU",
        "Mean IoU of samples and raters under their best matching.",
        "higher",
        several_raters=True,
    ),
    Metric(
        "d_max",
        "sets",
        "D max",
        "For each rater the Dice of the best sample, averaged.",
        "higher",
        several_raters=True,
    ),
    Metric(
        "ci",
        "sets",
        "CI",
        "Collective insight: recall of what any rater marked, D max, and likeness of the two "
        "sets' spread, in one figure. 1 is perfect.",
        "higher",
        several_raters=True,
    ),
    Metric(
        "s_ncc",
        "sets",
        "S-NCC",
        "Correlation of where samples differ from each other with where they differ from the "
        "raters. 1 is perfect. Not defined where all samples are alike.",
        "higher",
        several_raters=True,
    ),
    Metric(
        "diversity",
        "sets",
        "Sample diversity",
        "Mean 1 - IoU among the samples.",
        None,
        several_raters=True,
    ),
    Metric(
        "rater_diversity",
        "sets",
        "Rater diversity",
        "Mean 1 - IoU among the raters, to compare with.",
        None,
        several_raters=True,
    ),
)
"""All metrics, in the order of a report's keys; those of cases together come after the others."""

TABLE: Mapping[str, Metric] = {one.name: one for one in METRICS}
"""Name -> metric."""


def names_in(*groups: Group) -> tuple[str, ...]:
    """Names of the metrics in these groups, in their order; of all without any.

    >>> names_in("sets")[:2]
    ('ged2', 'hm_iou')
    """
    return tuple(one.name for one in METRICS if one.group in groups or not groups)


def class_figures(maps: ClassMaps, several_raters: bool) -> dict[str, float]:
    """Every metric of one class of a case; NaN where it is undefined.

    Args:
        maps: Maps of the class.
        several_raters: Whether the data set has several raters, even if this case has one.
    """
    return {
        one.name: float("nan")
        if any(getattr(maps, needed) is None for needed in one.needs)
        else float(one.of_class(maps))
        for one in METRICS
        if one.of_class and (several_raters or not one.several_raters)
    }
