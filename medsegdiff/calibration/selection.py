"""Choose how to calibrate: what helps patients left out of the fit, and hurts none of the figures.

A calibration is a model too. One that is fitted near the structure can turn a large, faintly
coloured background into structure while its own region improves. So each method is fitted to a part
of the patients and judged on the others, on the whole image and near the structure; and it is
refused where a figure gets worse by more than chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.calibration.fit import fit_method
from medsegdiff.calibration.scaling import Scaling
from medsegdiff.calibration.voxels import CaseVoxels
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import ScalingChoice, ScalingMethod
from medsegdiff.metrics.calibration_error import BINS, NLL_CLAMP, nll, reliability
from medsegdiff.metrics.means import mean_defined

LEAST_PATIENTS = 5
"""Patients below which nothing can be checked on those left out."""

FOLDS = 5
RESAMPLES = 2000
SEED = 0

DICE_LOSS = 0.002
"""Mean loss of Dice that is too much, whatever chance allows."""

NEGLIGIBLE = 0.01
"""Share of a figure by which it may get worse without counting."""

OF_CASES = ("dice", "nll", "ece", "ece_region", "ece_roi")
"""Figures of each case: Dice; NLL and ECE of the whole image; ECE of the region that the
calibration sees, and of the metrics' region of interest."""

POOLED = ("ece_pooled", "ece_region_pooled")
"""ECE of the voxels of all cases together, each case counting alike. Where the errors of a case
go one way, as those of a whole outline do, a case's own ECE favours a model that is too sure."""

FIGURES = (*OF_CASES, *POOLED)
"""Figures of patients left out that may not get worse."""

ByClass = dict[str, float]


@dataclass(frozen=True)
class Candidate:
    """What a method of scaling reaches on patients left out of its fits.

    Attributes:
        method: Method of the scaling.
        after: Figure -> class -> value: the mean over the cases, or that of all together.
        change: Figure -> class -> [mean, low, high] change over patients; below 0 is better, for
            Dice too (its sign is turned). Low and high bound 95 % of the resampled patients.
        gain: Gain in log-likelihood of the image, relative to the region's size: [mean, low, high].
        refused: Reasons why it is not used; empty if it could be.
    """

    method: ScalingMethod
    after: dict[str, ByClass]
    change: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    gain: list[float] = field(default_factory=list)
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The method that is used, and what speaks for it.

    Attributes:
        method: Method that was chosen.
        reason: Reason for it, in a sentence.
        before: Figure -> class -> mean over the cases without scaling.
        candidates: Results of each method; empty where patients are too few to check.
    """

    method: ScalingMethod
    reason: str
    before: dict[str, ByClass]
    candidates: tuple[Candidate, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The choice as dictionaries and lists."""
        return {
            "reason": self.reason,
            "before": self.before,
            "candidates": {
                one.method: {
                    "after": one.after,
                    "change": one.change,
                    "gain": one.gain,
                    "refused": list(one.refused),
                }
                for one in self.candidates
            },
        }


def choose_method(
    cases: Sequence[CaseVoxels], slugs: Sequence[str], wanted: ScalingChoice = "auto"
) -> Choice:
    """The method of scaling that helps patients left out.

    A more flexible method is chosen only where it beats the simpler one by more than chance.

    Args:
        cases: Cases to fit to and to judge by.
        slugs: Names of the foreground classes.
        wanted: ``auto``, or the one method that may be used if nothing speaks against it.
    """
    raw = [case.probability for case in cases]
    before = case_figures(cases, raw, slugs)
    means = _means(before, slugs) | _pooled(cases, raw, slugs)[0]
    if wanted == "none":
        return Choice("none", "no scaling was asked for", means)
    patients = len({case.patient for case in cases})
    if patients < LEAST_PATIENTS:
        reason = (
            f"{patients} patients are too few to see whether a scaling helps others: at least "
            f"{LEAST_PATIENTS} are needed"
        )
        return Choice("none", reason, means)
    if not any((case.share[1:] > 0).any() for case in cases):
        return Choice("none", "no rater has marked anything in any case", means)
    methods: tuple[ScalingMethod, ...] = ("temperature", "vector")
    tried = tuple(
        _judged(method, cases, slugs, before, means)
        for method in methods
        if wanted in ("auto", method)
    )
    likelihoods = _likelihoods(cases, raw)
    best: ScalingMethod = "none"
    for candidate in tried:
        if candidate.refused:
            continue
        own = _likelihoods(cases, crossed(cases, candidate.method))
        if _interval(cases, likelihoods - own)[1] > 0.0:
            best, likelihoods = candidate.method, own
    return Choice(best, _reason(best, tried), means, tried)


def crossed(cases: Sequence[CaseVoxels], method: ScalingMethod) -> list[NDArray[np.float32]]:
    """(K, V) probabilities of each case, scaled by a fit to other patients."""
    patients = sorted({case.patient for case in cases})
    np.random.default_rng(SEED).shuffle(patients)
    found: dict[int, NDArray[np.float32]] = {}
    for k in range(min(FOLDS, len(patients))):
        fold = set(patients[k::FOLDS])
        scaling: Scaling = fit_method([c for c in cases if c.patient not in fold], method)
        for i, case in enumerate(cases):
            if case.patient in fold:
                found[i] = scaling(case.probability)
    return [found[i] for i in range(len(cases))]


def _judged(
    method: ScalingMethod,
    cases: Sequence[CaseVoxels],
    slugs: Sequence[str],
    before: Mapping[str, Mapping[str, NDArray[np.float64]]],
    means: Mapping[str, ByClass],
) -> Candidate:
    try:
        scaled = crossed(cases, method)
    except InputError:
        return Candidate(method, {}, refused=("the marked cases are of too few patients",))
    raw = [case.probability for case in cases]
    after = case_figures(cases, scaled, slugs)
    together, drawn_after = _pooled(cases, scaled, slugs)
    drawn_before = _pooled(cases, raw, slugs)[1]
    change: dict[str, dict[str, list[float]]] = {name: {} for name in FIGURES}
    for slug in slugs:
        for name in OF_CASES:
            own = (after[name][slug] - before[name][slug]) * _sign(name)
            change[name][slug] = _interval(cases, own)
        for name in POOLED:
            mean = together[name][slug] - means[name][slug]
            drawn = drawn_after[name][slug] - drawn_before[name][slug]
            change[name][slug] = [mean, *(float(q) for q in np.percentile(drawn, (2.5, 97.5)))]
    gain = _interval(cases, _likelihoods(cases, raw) - _likelihoods(cases, scaled))
    refused = [
        _worse(name, slug, means[name][slug], change[name][slug])
        for name in FIGURES
        for slug in slugs
        if _is_worse(name, means[name][slug], change[name][slug])
    ]
    if gain[1] <= 0.0:
        refused.append(
            "it does not make the references of patients left out more likely by more than chance"
        )
    return Candidate(method, _means(after, slugs) | together, change, gain, tuple(refused))


def _sign(figure: str) -> float:
    """1 where a lower value is better, -1 where a higher one is."""
    return -1.0 if figure == "dice" else 1.0


def _is_worse(figure: str, before: float, change: Sequence[float]) -> bool:
    mean, low, _ = change
    if np.isnan(mean):
        return False
    if figure == "dice" and mean > DICE_LOSS:
        return True
    return low > 0.0 and mean > NEGLIGIBLE * abs(before)


def _worse(figure: str, slug: str, before: float, change: Sequence[float]) -> str:
    after = before + change[0] * _sign(figure)
    return f"{figure} of {slug} would get worse on patients left out: {before:.4f} -> {after:.4f}"


def _first(reasons: Sequence[str]) -> str:
    """The first reason, and how many there are beside it; the file of the calibration has all."""
    return reasons[0] + (f", and {len(reasons) - 1} more" if len(reasons) > 1 else "")


def _reason(best: ScalingMethod, tried: Sequence[Candidate]) -> str:
    if best != "none":
        return f"{best} scaling helps patients left out, and no figure gets worse beyond chance"
    told = "; ".join(f"{one.method}: {_first(one.refused)}" for one in tried if one.refused)
    return f"no scaling is used, since none helps patients left out ({told})"


def _likelihoods(
    cases: Sequence[CaseVoxels], maps: Sequence[NDArray[np.float32]]
) -> NDArray[np.float64]:
    """(n,) cross-entropy of each image, in nats, over the number of voxels of its region."""
    found = []
    for case, p in zip(cases, maps, strict=True):
        log_p = np.log(np.clip(p.astype(np.float64), NLL_CLAMP, 1.0))
        loss = float(-(case.share * log_p).sum(axis=0) @ case.weight)
        found.append(loss / case.region_size)
    return np.array(found)


def _pooled(
    cases: Sequence[CaseVoxels], maps: Sequence[NDArray[np.float32]], slugs: Sequence[str]
) -> tuple[dict[str, ByClass], dict[str, dict[str, NDArray[np.float64]]]]:
    """ECE of all cases together by class, and (R,) of the resampled patients."""
    patients, of_case = np.unique([case.patient for case in cases], return_inverse=True)
    n = len(patients)
    rng = np.random.default_rng(SEED)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    found: dict[str, ByClass] = {name: {} for name in POOLED}
    resampled: dict[str, dict[str, NDArray[np.float64]]] = {name: {} for name in POOLED}
    for value, slug in enumerate(slugs, start=1):
        for name in POOLED:
            gaps = np.zeros((n, BINS))
            for i, (case, p) in enumerate(zip(cases, maps, strict=True)):
                region = case.region if name == "ece_region_pooled" else None
                bins = reliability(p[value], case.share[value], region, weight=case.weight)
                size = float(bins.count.sum()) or 1.0
                gaps[of_case[i]] += (bins.probability - bins.positive) / size
            found[name][slug] = float(np.abs(gaps.sum(axis=0)).sum() / len(cases))
            resampled[name][slug] = np.abs(drawn @ gaps).sum(axis=1) / len(cases)
    return found, resampled


def case_figures(
    cases: Sequence[CaseVoxels], maps: Sequence[NDArray[np.float32]], slugs: Sequence[str]
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Figure of ``OF_CASES`` -> class -> (n,) value of each case, NaN where it is undefined."""
    found: dict[str, dict[str, list[float]]] = {name: {s: [] for s in slugs} for name in OF_CASES}
    for case, p in zip(cases, maps, strict=True):
        mask = p.argmax(axis=0)
        for value, slug in enumerate(slugs, start=1):
            own, share, w = p[value], case.share[value], case.weight
            found["dice"][slug].append(_dice(mask == value, case.reference == value, w))
            found["nll"][slug].append(nll(own, share, w))
            found["ece"][slug].append(reliability(own, share, weight=w).ece)
            for name, region in (("ece_region", case.region), ("ece_roi", case.class_roi[value])):
                found[name][slug].append(reliability(own, share, region, weight=w).ece)
    return {n: {s: np.array(v) for s, v in by.items()} for n, by in found.items()}


def _dice(mask: NDArray[np.bool_], reference: NDArray[np.bool_], w: NDArray[np.float64]) -> float:
    size = float(w[mask].sum() + w[reference].sum())
    return 2.0 * float(w[mask & reference].sum()) / size if size else 1.0


def _means(
    figures: Mapping[str, Mapping[str, NDArray[np.float64]]], slugs: Sequence[str]
) -> dict[str, ByClass]:
    return {name: {s: mean_defined(figures[name][s]) for s in slugs} for name in OF_CASES}


def _interval(cases: Sequence[CaseVoxels], values: NDArray[np.float64]) -> list[float]:
    """[mean, low, high] of the patients' mean, and of 95 % of the resampled ones."""
    by_patient: dict[str, list[float]] = {}
    for case, value in zip(cases, values, strict=True):
        if not np.isnan(value):
            by_patient.setdefault(case.patient, []).append(float(value))
    if not by_patient:
        return [float("nan")] * 3
    means = np.array([np.mean(own) for own in by_patient.values()])
    rng = np.random.default_rng(SEED)
    drawn = rng.choice(means, (RESAMPLES, len(means))).mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return [float(means.mean()), float(low), float(high)]
