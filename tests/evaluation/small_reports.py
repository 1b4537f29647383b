"""The parts of a report that sentences and charts are made of."""

from __future__ import annotations

from typing import Any


def bins(frequency: float, count: int = 10) -> dict[str, Any]:
    """Fifteen bins in which the same share came true."""
    return {
        "count": [count] * 15,
        "confidence": [(b + 0.5) / 15 for b in range(15)],
        "frequency": [frequency] * 15,
        "ece": 0.1,
    }


def report(**summary: Any) -> dict[str, Any]:
    """The parts of a report that sentences and charts are made of."""
    figures = {
        "n_cases": 20,
        "n_patients": 10,
        "dice": {"mean": 0.9},
        "confidence_95": {"dice": {"mean": [0.85, 0.95]}},
        "uncertainty_error_auroc": {"mean": 0.95},
        "reliability": {"a": {"roi": bins(0.8)}},
    }
    return {"summary": figures | summary, "settings": {"labels": {"a": "Head"}}, "cases": []}


def rated(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """A report on cases of which raters and members have these diversities."""
    cases = [
        {"case": str(i), "rater_diversity": {"mean": x}, "diversity": {"mean": y}}
        for i, (x, y) in enumerate(pairs)
    ]
    return report() | {"cases": cases}
