"""The text of a report: headings with their meaning, and sentences about the figures."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isnan
from typing import Any

from medsegdiff.evaluation.charts import diversity_chart
from medsegdiff.evaluation.guarantee_figures import guarantee_sentences
from medsegdiff.evaluation.triage_figures import triage_sentence


def sentences(report: Mapping[str, Any]) -> list[str]:
    """Sentences about the figures of a report, in plain words."""
    told = [_overlap_sentence(report)]
    alone = _comparison_sentence(report["summary"].get("anchor"), "the single deterministic pass")
    study = "training" in report
    told += [alone, *_study_sentences(report)] if study else []
    told += [*_calibration_sentences(report), _error_sentence(report)]
    told.append(_diversity_sentence(diversity_chart(report)))
    told += [
        _comparison_sentence(report["summary"].get("members"), "the mean of its members"),
        "" if study else alone,
        *guarantee_sentences(report["summary"]),
        triage_sentence(report["summary"]),
    ]
    return [sentence for sentence in told if sentence]


LOW = 0.5
"""Dice of a case below which the report of a study calls it a miss."""


def _study_sentences(report: Mapping[str, Any]) -> list[str]:
    """Sentences on a study as a whole: how it was made, its calibration, and what limits it."""
    runs, dice = report["training"], report["summary"]["dice"]
    least, networks = min(run["training_cases"] for run in runs), _count(len(runs), "network")
    told = [
        f"Every case was segmented by a network that had not seen it: {networks}, each trained on "
        f"{_count(least, 'case')} or more."
    ]
    choice = report["calibration"] or {}
    told += [f"Calibration: {choice['reason']}."] if choice else []
    names = report["settings"]["labels"]
    hardest = min(names, key=lambda slug: _nan_last(dice[slug]))
    limits = [f"{names[hardest]} overlaps least ({dice[hardest]:.3f})"] if len(names) > 1 else []
    missed = sum(record["dice"]["mean"] < LOW for record in report["cases"])
    limits += (
        [f"the masks of {_count(missed, 'case')} overlap by less than {LOW}"] if missed else []
    )
    epochs = {run["epochs"] for run in runs if run["epochs"]}
    limits += [f"the training took {max(epochs)} epochs at most"] if epochs else []
    return [*told, f"What limits: {'; '.join(limits)}." if limits else ""]


def _nan_last(value: float) -> float:
    """The value; infinity for NaN, so that it is sorted last."""
    return inf if isnan(value) else value


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
    """Sentences about the calibration of each class, at probabilities of about 80 % and overall."""
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
    """Stated and observed probability of the voxels in the bins next to a probability."""
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
    """Sentence that compares the members' diversity with the raters', overall and case by case."""
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
    """Sentence that compares the ensemble with another mask, by Dice rounded to three digits."""
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
