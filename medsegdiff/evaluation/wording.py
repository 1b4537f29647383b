"""What the figures of a report mean, in plain words: headings, their meaning, and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

from medsegdiff.evaluation.charts import diversity_chart
from medsegdiff.evaluation.guarantee_figures import guarantee_sentences

TITLES = {
    "dice": ("Dice", "Overlap: twice the shared volume over the sum of both. 1 is perfect."),
    "iou": ("IoU", "Overlap: shared volume over joint volume (Jaccard). Never above Dice."),
    "precision": ("Precision", "Share of the mask that is right."),
    "recall": ("Recall", "Share of the reference that was found (sensitivity)."),
    "f1": ("F1", "Harmonic mean of precision and recall: the same number as Dice."),
    "hd95_mm": (
        "HD95 (mm)",
        "Distance within which 95 % of each outline lies from the other, the larger of both "
        "directions. 0 is perfect. Not defined where one mask is empty.",
    ),
    "surface_dice": (
        "Surface Dice",
        "Share of both surfaces that lies within the tolerance of the other. Not defined where "
        "one mask is empty.",
    ),
    "ece": (
        "ECE, image",
        "Expected calibration error: mean gap between the probability that is stated and the "
        "frequency that is observed, over the whole image. Background makes it look good.",
    ),
    "ece_roi": (
        "ECE, region",
        "The same within the reference and a margin around it. This is the one to look at.",
    ),
    "ace": (
        "ACE, image",
        "Mean gap of the bins of probability, each of the same weight.",
    ),
    "ace_roi": ("ACE, region", "The same within the reference and a margin around it."),
    "mce": ("MCE, image", "The largest gap of a bin of probability, however few voxels it holds."),
    "mce_roi": ("MCE, region", "The same within the reference and a margin around it."),
    "members_ece_roi": (
        "ECE of votes, region",
        "ECE of the share of members that mark a voxel: where 80 % of them do, 80 % should be so.",
    ),
    "brier": ("Brier score", "Mean squared difference of probability and truth. 0 is perfect."),
    "nll": ("NLL (nats)", "Negative log-likelihood of the truth. Punishes certainty in error."),
    "uncertainty_error_auroc": (
        "Error AUROC",
        "How often a wrong voxel has more variance than a right one, over the whole image, easy "
        "background included. 0.5 is chance, 1 is perfect. Not defined where no voxel is wrong.",
    ),
    "uncertainty_error_auprc": (
        "Error AUPRC",
        "Average precision of the variance in finding wrong voxels. Chance is their share, which "
        "is small; 1 is perfect. Easy background does not raise it.",
    ),
    "uncertainty_error_overlap": (
        "Error overlap",
        "Dice of the wrong voxels with those above a threshold of variance, the best for the case.",
    ),
    "uncertainty_error_correlation": (
        "Error correlation",
        "Pearson correlation, over voxels, of the variance with being wrong.",
    ),
    "pavpu": (
        "PAvPU",
        "Share of small patches that are right and certain, or wrong and uncertain. Easy "
        "background makes it look good.",
    ),
    "variance_rater_correlation": (
        "Rater correlation",
        "Pearson correlation, over voxels, of the members' variance with that of the raters.",
    ),
    "aurc": (
        "AURC",
        "Mean of 1 - Dice over all shares of the cases that are kept, the most certain ones "
        "first. Lower is better.",
    ),
    "e_aurc": ("E-AURC", "AURC less that of the best order of the cases. 0 is a perfect order."),
    "ged2": (
        "GED²",
        "Squared generalised energy distance of the samples to the raters' masks. 0 if both "
        "sets are alike; it depends on the number of samples.",
    ),
    "hm_iou": ("HM-IoU", "Mean IoU of samples and raters under their best matching."),
    "d_max": ("D max", "For each rater the Dice of the best sample, averaged."),
    "ci": (
        "CI",
        "Collective insight: recall of what any rater marked, D max, and likeness of the two "
        "sets' spread, in one figure. 1 is perfect.",
    ),
    "s_ncc": (
        "S-NCC",
        "Correlation of where samples differ from each other with where they differ from the "
        "raters. 1 is perfect. Not defined where all samples are alike.",
    ),
    "diversity": ("Sample diversity", "Mean 1 - IoU among the samples."),
    "rater_diversity": ("Rater diversity", "Mean 1 - IoU among the raters, to compare with."),
}
"""Metric -> its heading, and what it means in plain words."""


def sentences(report: Mapping[str, Any]) -> list[str]:
    """What the figures say, in plain words."""
    told = [_overlap_sentence(report), *_calibration_sentences(report), _error_sentence(report)]
    told.append(_diversity_sentence(diversity_chart(report)))
    told += [
        _comparison_sentence(report["summary"].get("members"), "the mean of its members"),
        _comparison_sentence(report["summary"].get("anchor"), "the single deterministic pass"),
        *guarantee_sentences(report["summary"]),
    ]
    return [sentence for sentence in told if sentence]


def _overlap_sentence(report: Mapping[str, Any]) -> str:
    summary, n = report["summary"], report["summary"]["n_cases"]
    low, high = summary["confidence_95"]["dice"]["mean"]
    interval = "" if isnan(low) else f" (95 % interval over patients {low:.3f} to {high:.3f})"
    text = (
        f"On {_count(n, 'case')} of {_count(summary['n_patients'], 'patient')} the masks overlap "
        f"with the reference by a mean Dice of {summary['dice']['mean']:.3f}{interval}; "
        "1 would be perfect."
    )
    if n < 10:
        text += " So few cases say little about others: read the figures as a check, not a proof."
    return text


def _calibration_sentences(report: Mapping[str, Any]) -> list[str]:
    """What became of the voxels that were given about 80 %, for each class."""
    told = []
    for slug, regions in report["summary"]["reliability"].items():
        if regions is None:
            continue
        roi, name = regions["roi"], report["settings"]["labels"][slug]
        error = f"its probabilities are off by {100 * roi['ece']:.1f} points on average"
        stated, observed = _near(roi, 0.8)
        if isnan(stated):
            told.append(f"{name}: near the structure {error}.")
            continue
        judged = "too bold" if stated - observed >= 0.05 else "about right"
        judged = "too timid" if observed - stated >= 0.05 else judged
        told.append(
            f"{name}: where the model says {100 * stated:.0f} % it is right "
            f"{100 * observed:.0f} % of the time ({judged}); near the structure {error}."
        )
    return told


def _near(bins: Mapping[str, Any], probability: float) -> tuple[float, float]:
    """Stated and observed share of the voxels whose bin lies next to a probability."""
    n = len(bins["count"])
    close = [b for b in range(n) if abs((b + 0.5) / n - probability) <= 1 / n and bins["count"][b]]
    total = sum(bins["count"][b] for b in close)
    if not total:
        return float("nan"), float("nan")
    stated, observed = (
        sum(bins["count"][b] * bins[key][b] for b in close) / total
        for key in ("confidence", "frequency")
    )
    return stated, observed


def _error_sentence(report: Mapping[str, Any]) -> str:
    auroc = report["summary"]["uncertainty_error_auroc"]["mean"]
    if isnan(auroc):
        return ""
    use = "the variance is no guide to errors here"
    use = "high variance is a hint at an error" if auroc >= 0.7 else use
    use = "high variance points well to errors: check those voxels first" if auroc >= 0.9 else use
    return (
        f"A wrong voxel has more variance than a right one in {100 * auroc:.0f} % of pairs: {use}."
    )


def _diversity_sentence(diversity: Mapping[str, Any] | None) -> str:
    """Whether members scatter as raters do, on the whole and case by case."""
    if diversity is None:
        return ""
    members, raters = diversity["members"], diversity["raters"]
    judged = "about as much as"
    judged = "less than" if members < 0.8 * raters else judged
    judged = "more than" if members > 1.25 * raters else judged
    text = (
        f"Members differ from each other {judged} raters do: by {members:.2f} against {raters:.2f} "
        f"(mean 1 − IoU) on {_count(len(diversity['points']), 'case')}."
    )
    r = diversity["correlation"]
    if isnan(r):
        return text
    follows = "say little about where raters do"
    follows = "are to some extent those where raters do" if r >= 0.3 else follows
    follows = "are mostly those where raters do" if r >= 0.6 else follows
    return f"{text} The cases where members differ {follows} (correlation {r:.2f})."


def _comparison_sentence(other: Mapping[str, Any] | None, name: str) -> str:
    """A verdict that the figures bear out as they are shown: three digits."""
    if other is None:
        return ""
    dice = other["dice"]["mean"]
    ensemble, alone = round(dice + other["ensemble_gain"], 3), round(dice, 3)
    verdict = "better than" if ensemble > alone else "no better than"
    verdict = "worse than" if ensemble < alone else verdict
    return (
        f"The ensemble is {verdict} {name}: mean Dice {ensemble:.3f} against {alone:.3f} "
        f"on {_count(other['n_cases'], 'case')}."
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
