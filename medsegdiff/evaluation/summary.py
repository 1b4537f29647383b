"""The figures of a whole data set, from those of its cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.evaluation.case_figures import ByClass, CaseResult
from medsegdiff.evaluation.guarantee_figures import count_fitted, summarise_guarantee
from medsegdiff.evaluation.triage_figures import summarise_triage
from medsegdiff.metrics.calibration_error import Reliability
from medsegdiff.metrics.means import mean_defined
from medsegdiff.metrics.overlap import OVERLAP
from medsegdiff.metrics.table import METRICS, names_in

RESAMPLES = 2000
SEED = 0


def summarise(results: Sequence[CaseResult], classes: Sequence[str]) -> dict[str, Any]:
    """Means over cases, and the figures that need many cases.

    Args:
        results: Results of the cases, at least one.
        classes: Names of the foreground classes.

    Returns:
        For each metric, class -> mean over the cases where it is defined, and ``mean`` over the
        classes (for measures of sample sets, over the cases' own means). The same for ``aurc`` and
        ``e_aurc``. In addition:

        - ``n_cases``, ``n_patients``, and ``n_fitted``: cases the calibration was fitted on.
        - ``confidence_95``: metric -> class -> [low, high], see :func:`bootstrap`.
        - ``non_empty``: the overlap metrics over the cases whose reference has the class.
        - ``members``, ``anchor``: their own ``dice``, ``n_cases`` where it is known, and
          ``ensemble_gain``, the ensemble's mean Dice minus theirs over those cases; absent if no
          case has them.
        - ``any_class_auroc``: AUROC of the variance summed over classes and of the entropy, for
          voxels with any wrong class.
        - ``guarantee``: see :func:`summarise_guarantee`; absent if no case has one.
        - ``triage``: see :func:`summarise_triage`; absent if no record says anything.
        - ``reliability``: class -> ``image``, ``roi`` and, for cases with member files, ``members``
          -> bins over all cases.
        - ``planes``: number of planes evaluated one by one, and of those with a defined S_NCC;
          absent if there are none.
    """
    return {
        **_means(results, classes, list(results[0].values)),
        **{one.name: _of_cases(one.of_cases, results, classes) for one in METRICS if one.of_cases},
        "n_cases": len(results),
        "n_patients": len({result.patient for result in results}),
        "n_fitted": count_fitted([result.run for result in results]),
        "confidence_95": {name: bootstrap(results, classes, name) for name in results[0].values},
        "non_empty": _means(results, classes, OVERLAP, lambda r, slug: r.present[slug]),
        **_compare(results, classes, "members", lambda result: result.members_dice),
        **_compare(results, classes, "anchor", lambda result: result.anchor_dice),
        "any_class_auroc": {
            name: mean_defined([r.maps_auroc.get(name, np.nan) for r in results])
            for name in ("variance", "entropy")
        },
        **summarise_guarantee([r.guarantee for r in results], [r.run for r in results]),
        **summarise_triage(
            [{slug: r.values["dice"][slug] for slug in classes} for r in results],
            [r.run for r in results],
        ),
        "reliability": {slug: _reliability(results, slug) for slug in classes},
        **_planes(results),
    }


def count_undefined(
    results: Sequence[CaseResult], classes: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Metric -> class -> number of cases in which the metric is undefined."""
    counts = {
        name: {slug: sum(bool(np.isnan(r.values[name][slug])) for r in results) for slug in classes}
        for name in results[0].values
    }
    for name in (one.name for one in METRICS if one.of_cases):
        counts[name] = {slug: sum(slug not in r.uncertainty for r in results) for slug in classes}
    return counts


def bootstrap(
    results: Sequence[CaseResult], classes: Sequence[str], metric: str
) -> dict[str, list[float]]:
    """95 % percentile interval of a metric's mean, resampling patients with replacement.

    Cases of one patient are not independent, so a patient is drawn with all of their cases. With
    fewer than two patients, the interval is NaN.

    Returns:
        Class, or ``mean`` over classes -> [low, high].
    """
    _, patient = np.unique([result.patient for result in results], return_inverse=True)
    n = int(patient.max()) + 1
    weights = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    own_mean = metric in names_in("sets")
    names = (*classes, "mean") if own_mean else tuple(classes)
    means = {
        name: _resampled_means(_column(results, metric, name), patient, weights) for name in names
    }
    if not own_mean:
        means["mean"] = np.mean(list(means.values()), axis=0)
    return {name: _percentiles(values, n) for name, values in means.items()}


def _resampled_means(
    values: NDArray[np.float64], patient: NDArray[np.intp], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(R,) means over the defined cases of R draws, whose weights of patients are (R, n)."""
    defined = ~np.isnan(values)
    sums = np.bincount(patient[defined], weights=values[defined], minlength=weights.shape[1])
    counts = np.bincount(patient[defined], minlength=weights.shape[1])
    total = weights @ counts
    return np.divide(weights @ sums, total, out=np.full(len(weights), np.nan), where=total > 0)


def _percentiles(values: NDArray[np.float64], patients: int) -> list[float]:
    defined = values[~np.isnan(values)]
    if patients < 2 or not defined.size:
        return [float("nan"), float("nan")]
    return [float(q) for q in np.percentile(defined, (2.5, 97.5))]


def _column(results: Sequence[CaseResult], metric: str, name: str) -> NDArray[np.float64]:
    return np.array([result.values[metric][name] for result in results])


def _means(
    results: Sequence[CaseResult],
    classes: Sequence[str],
    names: Sequence[str],
    use: Callable[[CaseResult, str], bool] = lambda result, slug: True,
) -> dict[str, ByClass]:
    summary = {}
    for metric in names:
        by_class = {
            slug: mean_defined([r.values[metric][slug] for r in results if use(r, slug)])
            for slug in classes
        }
        own_mean = mean_defined(_column(results, metric, "mean"))
        mean = own_mean if metric in names_in("sets") else mean_defined(list(by_class.values()))
        summary[metric] = {"mean": mean, **by_class}
    return summary


def _of_cases(
    measure: Callable[[NDArray[Any], NDArray[Any]], float],
    results: Sequence[CaseResult],
    classes: Sequence[str],
) -> ByClass:
    """Class -> a measure of the cases' uncertainty and risk, 1 - Dice."""
    by_class = {}
    for slug in classes:
        known = [result for result in results if slug in result.uncertainty]
        doubt = np.array([result.uncertainty[slug] for result in known])
        risk = np.array([1.0 - result.values["dice"][slug] for result in known])
        by_class[slug] = measure(doubt, risk)
    return {"mean": mean_defined(list(by_class.values())), **by_class}


def _compare(
    results: Sequence[CaseResult],
    classes: Sequence[str],
    name: str,
    other: Callable[[CaseResult], ByClass],
) -> dict[str, Any]:
    known = [result for result in results if other(result)]
    if not known:
        return {}
    dice = {slug: float(np.mean([other(r)[slug] for r in known])) for slug in ("mean", *classes)}
    gain = np.mean([r.values["dice"]["mean"] - other(r)["mean"] for r in known])
    return {name: {"dice": dice, "ensemble_gain": float(gain), "n_cases": len(known)}}


def _planes(results: Sequence[CaseResult]) -> dict[str, dict[str, int]]:
    known = [result.planes for result in results if result.planes]
    return {"planes": {key: sum(p[key] for p in known) for key in known[0]}} if known else {}


def _reliability(results: Sequence[CaseResult], slug: str) -> dict[str, Any] | None:
    known = [result.reliability[slug] for result in results]
    pooled = {}
    for name in ("image", "roi", "members"):
        parts = [bins[name] for bins in known if name in bins]
        if parts:
            pooled[name] = _bins(reduce(add, parts))
    return pooled or None


def _bins(bins: Reliability) -> dict[str, Any]:
    return {
        "count": bins.count.tolist(),
        "confidence": bins.confidence.tolist(),
        "frequency": bins.frequency.tolist(),
        "ece": bins.ece,
        "ace": bins.ace,
        "mce": bins.mce,
    }
