"""Data of the report's charts: points and curves, and the ends of their axes."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, log10
from typing import Any

import numpy as np

from medsegdiff.metrics.uncertainty import risk_coverage


def reliability_charts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each class, the points of the reliability diagram and the heights of its count bars."""
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
    """For each class, the points (uncertainty, 1 - Dice) of cases and the risk-coverage curve."""
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


def diversity_chart(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Disagreement of the members, compared with the disagreement of the raters.

    Returns:
        ``points``: case, x (mean 1 - IoU among the raters), y (among the members); ``raters`` and
        ``members``: their means over these cases; ``correlation``: Pearson correlation over the
        cases, NaN for fewer than three cases or a constant; ``top``: the end of both axes. None if
        no case has both.
    """
    points = []
    for record in report["cases"]:
        if "diversity" not in record or "rater_diversity" not in record:
            continue
        x, y = record["rater_diversity"]["mean"], record["diversity"]["mean"]
        if not (isnan(x) or isnan(y)):
            points.append({"case": record["case"], "x": x, "y": y})
    if not points:
        return None
    raters, members = (np.array([point[axis] for point in points]) for axis in ("x", "y"))
    varied = len(points) > 2 and raters.std() > 1e-9 and members.std() > 1e-9
    return {
        "points": points,
        "raters": float(raters.mean()),
        "members": float(members.mean()),
        "correlation": float(np.corrcoef(raters, members)[0, 1]) if varied else float("nan"),
        "top": _round_up(float(max(raters.max(), members.max()))),
    }


def _round_up(value: float) -> float:
    """The next greater number of few digits, as the end of an axis."""
    if value <= 0.0:
        return 1.0
    power: float = 10.0 ** np.floor(np.log10(value))
    return next(
        step * power for step in (1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 10.0) if step * power >= value
    )
