"""What the page says follows from the figures."""

from __future__ import annotations

import statistics
from math import isnan, nan
from typing import Any

import pytest

from medsegdiff.evaluation.charts import diversity_chart, reliability_charts
from medsegdiff.evaluation.report import BEST, WORST, grouped, ranked
from medsegdiff.evaluation.wording import sentences
from medsegdiff.metrics.table import GROUPS, TABLE, names_in


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


@pytest.mark.parametrize("n", [1, 3, 4, 6, 20])
def test_no_case_is_both_among_the_worst_and_the_best(n: int) -> None:
    records = [{"case": str(i), "dice": {"mean": (7 * i % n) / n}} for i in range(n)]
    worst, best = ranked(records)
    values = [record["dice"]["mean"] for record in (*worst, *best[::-1])]
    assert values == sorted(values)
    assert len({record["case"] for record in (*worst, *best)}) == len(values)
    assert len(values) == min(n, WORST + BEST)
    assert values[0] == 0.0 and values[-1] == (n - 1) / n


@pytest.mark.parametrize(
    ("frequency", "judged"), [(0.8, "about right"), (0.6, "too bold"), (0.95, "too timid")]
)
def test_the_statement_of_80_per_cent_is_judged(frequency: float, judged: str) -> None:
    told = " ".join(sentences(report(reliability={"a": {"roi": bins(frequency)}})))
    assert f"says 80 % it is right {100 * frequency:.0f} % of the time ({judged})" in told


@pytest.mark.parametrize("other", ["members", "anchor"])
@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (0.02, "better than"),
        (0.0001, "no better than"),
        (0.0, "no better than"),
        (-0.0001, "no better than"),
        (-0.01, "worse than"),
    ],
)
def test_the_ensemble_is_compared_honestly(other: str, gain: float, verdict: str) -> None:
    name = {"members": "the mean of its members", "anchor": "the single deterministic pass"}[other]
    figures = {"dice": {"mean": 0.88}, "ensemble_gain": gain, "n_cases": 1}
    told = sentences(report(**{other: figures}))[-1]
    assert told == (
        f"The ensemble is {verdict} {name}: mean Dice {0.88 + gain:.3f} against 0.880 on 1 case."
    )


def test_what_is_undefined_is_not_told() -> None:
    few = report(
        n_cases=1,
        n_patients=1,
        confidence_95={"dice": {"mean": [nan, nan]}},
        uncertainty_error_auroc={"mean": nan},
        reliability={"a": None},
    )
    told = " ".join(sentences(few))
    assert "nan" not in told
    assert "1 case of 1 patient " in told and "So few cases" in told


def test_empty_bins_are_not_drawn() -> None:
    roi = bins(0.5)
    roi["count"][3], roi["frequency"][3] = 0, nan
    chart = reliability_charts(report(reliability={"a": {"roi": roi}}))[0]
    assert len(chart["bins"]) == 14
    assert not any(isnan(bin_["frequency"]) for bin_ in chart["bins"])
    assert all(0 < bin_["height"] <= 1 for bin_ in chart["bins"])


def rated(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """A report on cases of which raters and members have these diversities."""
    cases = [
        {"case": str(i), "rater_diversity": {"mean": x}, "diversity": {"mean": y}}
        for i, (x, y) in enumerate(pairs)
    ]
    return report() | {"cases": cases}


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ([(0.2, 0.2), (0.4, 0.4), (0.6, 0.6)], ["about as much as raters do", "mostly", "1.00"]),
        ([(0.2, 0.1), (0.4, 0.1), (0.6, 0.2)], ["less than raters do", "0.13 against 0.40"]),
        ([(0.2, 0.9), (0.4, 0.8), (0.6, 0.7)], ["more than raters do", "little", "-1.00"]),
        ([(0.2, 0.2), (0.4, 0.4), (nan, 0.6)], ["on 2 cases."]),
        ([(0.3, 0.2), (0.3, 0.4), (0.3, 0.6)], ["on 3 cases."]),
    ],
)
def test_diversity_of_members_is_held_against_that_of_raters(
    pairs: list[tuple[float, float]], told: list[str]
) -> None:
    sentence = next(s for s in sentences(rated(pairs)) if "Members differ" in s)
    assert all(part in sentence for part in told)
    assert "nan" not in sentence
    chart = diversity_chart(rated(pairs))
    assert chart is not None
    assert all(point["x"] <= chart["top"] >= point["y"] for point in chart["points"])
    known = [(x, y) for x, y in pairs if x == x]
    if len(known) > 2 and len({x for x, _ in known}) > 1:
        x, y = zip(*known, strict=True)
        assert chart["correlation"] == pytest.approx(statistics.correlation(x, y))


def test_without_raters_nothing_is_said_of_them() -> None:
    assert diversity_chart(rated([(nan, 0.2)])) is None
    assert diversity_chart(report() | {"cases": [{"case": "a", "dice": {"mean": 1.0}}]}) is None
    assert not any("raters" in sentence for sentence in sentences(report()))


def test_every_metric_has_one_group() -> None:
    groups = grouped(list(TABLE))
    assert sorted(name for names in groups.values() for name in names) == sorted(TABLE)
    assert set(groups) == set(GROUPS)
    assert tuple(groups["masks"]) == names_in("masks")
    assert "sets" not in grouped(["dice", "ece", "aurc"])


def test_the_report_of_a_study_says_first_what_matters() -> None:
    of_anchor = {"dice": {"mean": 0.88}, "ensemble_gain": 0.02, "n_cases": 20}
    found = report(anchor=of_anchor, dice={"mean": 0.9, "a": 0.95, "b": 0.85})
    found["settings"]["labels"] = {"a": "Head", "b": "Tail"}
    found["summary"]["reliability"] = {}
    found["cases"] = [{"dice": {"mean": 0.4}}, {"dice": {"mean": 0.9}}]
    run = {"training_cases": 16, "held_out_cases": 4, "epochs": 90}
    found |= {"training": [run, {**run, "training_cases": 15}], "calibration": {"reason": "why"}}
    told = sentences(found)
    assert "mean Dice of 0.900 (95 % interval over patients 0.850 to 0.950)" in told[0]
    assert "better than the single deterministic pass" in told[1]
    assert "2 networks, each trained on 15 cases or more" in told[2]
    assert told[3] == "Calibration: why."
    assert "Tail overlaps least (0.850)" in told[4] and "of 1 case overlap" in told[4]
    assert sum("single deterministic pass" in one for one in told) == 1
