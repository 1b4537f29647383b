"""How well it was told beforehand: the Dice to expect, and cases unlike the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from medsegdiff.metrics.means import mean_defined
from medsegdiff.triage.familiarity import ALPHA

LEAST_CASES = 5
"""Cases below which nothing is said of a rank."""


def summarise_triage(
    dice: Sequence[Mapping[str, float]], runs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """``triage``: what the records said, beside what the references show; empty without.

    Args:
        dice: Class -> Dice of each case; NaN where it is not defined.
        runs: Content of ``<case>_run.json`` of each.

    Returns:
        ``n_cases``, and those of them that the calibration was ``fitted`` on;
        ``unlike``, share of cases that were said to be unlike the training; and, over all cases and
        classes with an expected Dice, ``rank_correlation`` of expected and real Dice (Spearman, the
        mean over the classes), ``rank_correlation_of_score``, and ``intervals_hold``, beside their
        ``level``.
    """
    known = [i for i, run in enumerate(runs) if run.get("unlike_training") or run.get("review")]
    if not known:
        return {}
    unlike = [one["p_value"] < ALPHA for i in known if (one := runs[i].get("unlike_training"))]
    reviews = [(i, review) for i in known if (review := runs[i].get("review"))]
    held, ranks = [], []
    for slug in next(iter(reviews), (0, {"expected_dice": {}}))[1]["expected_dice"]:
        pairs = [
            (review["expected_dice"][slug], dice[i][slug])
            for i, review in reviews
            if slug in review["expected_dice"] and np.isfinite(dice[i].get(slug, nan))
        ]
        held += [low <= real <= high for one, real in pairs for low, high in [one["interval"]]]
        ranks.append(_rank([one["dice"] for one, _ in pairs], [real for _, real in pairs]))
    lowest = [min((v for v in dice[i].values() if np.isfinite(v)), default=nan) for i, _ in reviews]
    scores = [review["score"] for _, review in reviews]
    fitted = sum(bool((runs[i].get("calibration") or {}).get("includes_this_case")) for i in known)
    return {
        "triage": {
            "n_cases": len(known),
            "fitted": fitted,
            "unlike": float(np.mean(unlike)) if unlike else nan,
            "rank_correlation": mean_defined(ranks) if ranks else nan,
            "rank_correlation_of_score": _rank(scores, lowest),
            "intervals_hold": float(np.mean(held)) if held else nan,
            "level": reviews[0][1]["level"] if reviews else nan,
        }
    }


def triage_sentence(summary: Mapping[str, Any]) -> str:
    """What to make of it, in words; empty without."""
    found = summary.get("triage")
    if not found or np.isnan(found["rank_correlation_of_score"]):
        return ""
    rank = found["rank_correlation_of_score"]
    use = "does not tell which cases are poor" if rank < 0.3 else "hints at the poor cases"
    use = "tells the poor cases well" if rank >= 0.6 else use
    fitted = f", {found['fitted']} of which it was fitted on" if found["fitted"] else ""
    return (
        f"The score by which cases are ordered for review {use}: its rank correlation with the "
        f"lowest Dice of a case is {rank:.2f} on {found['n_cases']} cases{fitted}. "
        f"{100 * found['unlike']:.0f} % of the cases were said to be unlike the training."
    )


def _rank(first: Sequence[float], second: Sequence[float]) -> float:
    pairs = np.array([first, second], dtype=float)
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if pairs.shape[1] < LEAST_CASES or not (np.ptp(pairs, axis=1) > 0.0).all():
        return nan
    return float(spearmanr(*pairs).statistic)
