"""The report as one self-contained page: what was measured, what it means, how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, log10
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import aff2axcodes

from medsegdiff.data.images import PHOTOGRAPHS
from medsegdiff.data.manifest import Case, Manifest
from medsegdiff.data.transforms import read_channels
from medsegdiff.evaluation.case import majority
from medsegdiff.evaluation.files import DAMAGE, foreground, read_prediction, read_reference
from medsegdiff.evaluation.guarantee import guarantee_sentences
from medsegdiff.evaluation.summary import RESAMPLES
from medsegdiff.evaluation.uncertainty import risk_coverage
from medsegdiff.files import write_text
from medsegdiff.pages import render
from medsegdiff.pictures import COLOURS, three_planes, to_data_uri
from medsegdiff.types import InputError

SHOWN = 3
"""How many of the worst and of the best cases are shown as pictures."""

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
    "brier": ("Brier score", "Mean squared difference of probability and truth. 0 is perfect."),
    "nll": ("NLL (nats)", "Negative log-likelihood of the truth. Punishes certainty in error."),
    "uncertainty_error_auroc": (
        "Error AUROC",
        "How often a wrong voxel has more variance than a right one, over the whole image, easy "
        "background included. 0.5 is chance, 1 is perfect. Not defined where no voxel is wrong.",
    ),
    "uncertainty_error_correlation": (
        "Error correlation",
        "Pearson correlation, over voxels, of the variance with being wrong.",
    ),
    "aurc": (
        "AURC",
        "Mean of 1 - Dice over all shares of the cases that are kept, the most certain ones "
        "first. Lower is better.",
    ),
    "ged2": (
        "GED²",
        "Squared generalised energy distance of the samples to the raters' masks. 0 if both "
        "sets are alike; it depends on the number of samples.",
    ),
    "hm_iou": ("HM-IoU", "Mean IoU of samples and raters under their best matching."),
    "d_max": ("D max", "For each rater the Dice of the best sample, averaged."),
    "diversity": ("Sample diversity", "Mean 1 - IoU among the samples."),
    "rater_diversity": ("Rater diversity", "Mean 1 - IoU among the raters, to compare with."),
}
"""Metric -> its heading, and what it means in plain words."""


def write_html(
    path: Path,
    report: Mapping[str, Any],
    manifest: Manifest,
    cases: Sequence[Case],
    predictions: Path,
) -> None:
    """Write the page.

    Args:
        path: of the page.
        report: as :func:`medsegdiff.evaluation.evaluate.build_report` gives it, with NaN for what
            is undefined, and with ``failures``, ``without_prediction``, ``without_reference``.
        manifest: the data set, to read its images again for the pictures.
        cases: that were evaluated, in any order.
        predictions: folder of the segmented cases.
    """
    labels = report["settings"]["labels"]
    colours = {slug: COLOURS[i % len(COLOURS)] for i, slug in enumerate(labels)}
    worst, best = ranked(report["cases"])
    by_id = {case.id: case for case in cases}

    def pictures(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
        return [(r["case"], _picture(by_id[r["case"]], r, manifest, predictions)) for r in records]

    page = render(
        "report",
        report=report,
        summary=report["summary"],
        labels=labels,
        columns=[*labels, "mean"] if len(labels) > 1 else list(labels),
        colours=colours,
        titles={name: text for name, text in TITLES.items() if name in report["summary"]},
        sentences=sentences(report),
        reliability=reliability_charts(report),
        doubt=doubt_chart(report),
        worst=pictures(worst),
        best=pictures(best),
        patients=any(record["patient"] != record["case"] for record in report["cases"]),
        resamples=RESAMPLES,
        n_worst=len(worst),
        n_best=len(best),
    )
    write_text(path, page)


def ranked(
    records: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The cases of lowest and of highest mean Dice, none twice; the extreme ones first."""
    ordered = sorted(records, key=lambda record: (record["dice"]["mean"], record["case"]))
    return ordered[:SHOWN], ordered[SHOWN:][: -SHOWN - 1 : -1]


def case_picture(
    case: Case, record: Mapping[str, Any], manifest: Manifest, predictions: Path
) -> str:
    """Image, mask with reference, and variance summed over the classes, as a data URI."""
    classes = foreground(manifest)
    readings, geometry = read_reference(case, manifest)
    prediction = read_prediction(predictions / case.id, case.id, classes, geometry)
    image, _ = read_channels(case.images, manifest.spatial_dims, len(manifest.channels))
    image = np.moveaxis(image, 0, -1).reshape(*geometry.shape, -1)
    photograph = str(case.images[0]).lower().endswith(PHOTOGRAPHS)
    variance = np.sum(list(prediction.variance.values()), axis=0) if prediction.variance else None
    figure = three_planes(
        image if photograph else image[..., 0],
        prediction.seg,
        variance,
        geometry.spacing,
        reference=majority(readings, classes),
        title=f"{case.id}: Dice {record['dice']['mean']:.3f}",
        labels={value: manifest.labels[value] for value in classes},
        axes="" if photograph else "".join(aff2axcodes(geometry.affine)[: len(geometry.shape)]),
    )
    return to_data_uri(figure)


def _picture(*of: Any) -> str:
    """The picture, or why there is none: its figures stand without it."""
    try:
        return case_picture(*of)
    except InputError as error:
        return str(error)
    except DAMAGE as error:
        return f"{type(error).__name__}: {error}"


def reliability_charts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each class the points of the diagram and the heights of the bars of counts."""
    charts = []
    for slug, regions in report["summary"]["reliability"].items():
        if regions is None:
            continue
        roi = regions["roi"]
        most = max(log10(max(count, 1)) for count in roi["count"]) or 1.0
        bins = [
            {
                "confidence": confidence,
                "frequency": frequency,
                "count": count,
                "height": (log10(count) + 0.15) / (most + 0.15),
                "low": b / len(roi["count"]),
                "high": (b + 1) / len(roi["count"]),
            }
            for b, (count, confidence, frequency) in enumerate(
                zip(roi["count"], roi["confidence"], roi["frequency"], strict=True)
            )
            if count
        ]
        charts.append({"slug": slug, "bins": bins, "ece": roi["ece"], "n": sum(roi["count"])})
    return charts


def doubt_chart(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Points (uncertainty, 1 - Dice) of the cases, and the risk-coverage curve, of each class."""
    known = [record for record in report["cases"] if record["uncertainty"]]
    if not known:
        return None
    points, curves = [], []
    for slug in report["settings"]["labels"]:
        rows = [record for record in known if slug in record["uncertainty"]]
        doubt = np.array([record["uncertainty"][slug] for record in rows])
        risk = np.array([1.0 - record["dice"][slug] for record in rows])
        for record, x, y in zip(rows, doubt, risk, strict=True):
            points.append({"slug": slug, "case": record["case"], "x": float(x), "y": float(y)})
        coverage, mean_risk = risk_coverage(doubt, risk)
        curve = list(zip(coverage.tolist(), mean_risk.tolist(), strict=True))
        curves.append({"slug": slug, "points": curve})
    return {
        "points": points,
        "curves": curves,
        "top_x": _round_up(max(point["x"] for point in points)),
        "top_y": _round_up(max(point["y"] for point in points)),
        "top_risk": _round_up(max(y for curve in curves for _, y in curve["points"])),
    }


def sentences(report: Mapping[str, Any]) -> list[str]:
    """What the figures say, in plain words."""
    told = [_overlap_sentence(report), *_calibration_sentences(report), _error_sentence(report)]
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


def _round_up(value: float) -> float:
    """The next short number, the end of an axis."""
    if value <= 0.0:
        return 1.0
    power: float = 10.0 ** np.floor(np.log10(value))
    return next(
        step * power for step in (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 10.0) if step * power >= value
    )
