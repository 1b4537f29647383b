"""The points, curves and axes of the report's charts, figure by figure."""

from __future__ import annotations

from math import isnan, log10, nan
from typing import Any

import pytest

from medsegdiff.evaluation.charts import _round_up, diversity_chart, doubt_chart, reliability_charts
from tests.evaluation.small_reports import rated, report


def test_a_reliability_diagram_holds_its_bins_where_they_lie() -> None:
    roi = {
        "count": [1000, 0, 10, 1],
        "confidence": [0.1, nan, 0.6, 0.9],
        "frequency": [0.2, nan, 0.5, 1.0],
        "ece": 0.07,
    }
    classes = {"none": None, "a": {"roi": roi, "image": None}}
    (chart,) = reliability_charts(report(reliability=classes))
    assert (chart["slug"], chart["ece"], chart["n"]) == ("a", 0.07, 1011)
    first, third, last = chart["bins"]
    assert first == {
        "confidence": 0.1,
        "frequency": 0.2,
        "count": 1000,
        "height": pytest.approx(1.0),
        "low": 0.0,
        "high": 0.25,
    }
    assert (third["low"], third["high"], last["low"], last["high"]) == (0.5, 0.75, 0.75, 1.0)
    assert third["height"] == pytest.approx((log10(10) + 0.15) / (3 + 0.15))
    assert last["height"] == pytest.approx(0.15 / 3.15)  # a single voxel can be seen


@pytest.mark.parametrize("counts", [[1, 1], [0, 1]])
def test_bars_of_single_voxels_have_a_height(counts: list[int]) -> None:
    roi = {"count": counts, "confidence": [0.1, 0.9], "frequency": [0.0, 1.0], "ece": 0.1}
    (chart,) = reliability_charts(report(reliability={"a": {"roi": roi}}))
    assert [one["height"] for one in chart["bins"]] == pytest.approx([0.15 / 1.15] * sum(counts))


def doubtful() -> dict[str, Any]:
    """Two classes; a case without maps, and one where the second class has none."""
    cases = [
        {"case": "x", "uncertainty": {"a": 0.4, "b": 0.02}, "dice": {"a": 0.5, "b": 0.75}},
        {"case": "y", "uncertainty": {"a": 0.1}, "dice": {"a": 0.9, "b": 0.8}},
        {"case": "z", "uncertainty": {}, "dice": {"a": 0.1, "b": 0.1}},
    ]
    found = report()
    return found | {"cases": cases, "settings": {"labels": {"a": "Head", "b": "Tail"}}}


def test_cases_are_points_and_their_risk_over_coverage_a_curve() -> None:
    chart = doubt_chart(doubtful())
    assert chart is not None
    assert chart["points"] == [
        {"slug": "a", "case": "x", "x": 0.4, "y": 0.5},
        {"slug": "a", "case": "y", "x": 0.1, "y": pytest.approx(0.1)},
        {"slug": "b", "case": "x", "x": 0.02, "y": 0.25},
    ]
    head, tail = chart["curves"]
    assert (head["slug"], tail["slug"]) == ("a", "b")
    # the more certain case comes first, then both together
    assert head["points"] == [(0.5, pytest.approx(0.1)), (1.0, pytest.approx(0.3))]
    assert tail["points"] == [(1.0, 0.25)]
    assert [chart[name] for name in ("top_x", "top_y", "top_risk")] == pytest.approx(
        [0.5, 0.5, 0.3]
    )


def test_without_maps_there_is_no_chart_of_doubt() -> None:
    given = doubtful()
    given["cases"] = given["cases"][2:]
    assert doubt_chart(given) is None


def test_diversity_is_shown_of_the_cases_that_have_both() -> None:
    given = rated([(0.2, 0.1), (nan, 0.3), (0.4, nan), (0.3, 0.45)])
    given["cases"] += [{"case": "m", "diversity": {"mean": 0.1}}]
    given["cases"] += [{"case": "r", "rater_diversity": {"mean": 0.1}}]
    chart = diversity_chart(given)
    assert chart is not None and isnan(chart["correlation"])  # of two cases
    assert chart["points"] == [
        {"case": "0", "x": 0.2, "y": 0.1},
        {"case": "3", "x": 0.3, "y": 0.45},
    ]
    assert (chart["raters"], chart["members"]) == pytest.approx((0.25, 0.275))
    assert chart["top"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "pairs", [[(0.2, 0.3), (0.3, 0.3), (0.4, 0.3)], [(0.3, 0.2), (0.3, 0.3), (0.3, 0.4)]]
)
def test_what_is_always_the_same_has_no_correlation(pairs: list[tuple[float, float]]) -> None:
    chart = diversity_chart(rated(pairs))
    assert chart is not None and isnan(chart["correlation"])


@pytest.mark.parametrize(
    ("value", "top"),
    [
        (-1.0, 1.0),
        (0.0, 1.0),
        (0.02, 0.02),
        (1.0, 1.0),
        (1.01, 1.5),
        (1.6, 2.0),
        (2.1, 3.0),
        (0.31, 0.5),
        (51.0, 80.0),
        (81.0, 100.0),
        (0.97, 1.0),
    ],
)
def test_axes_end_at_a_number_of_few_digits(value: float, top: float) -> None:
    assert _round_up(value) == pytest.approx(top)
