"""What the page says follows from the figures."""

from __future__ import annotations

import statistics
from math import isnan, nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.evaluation import report as report_module
from medsegdiff.evaluation.charts import diversity_chart, reliability_charts
from medsegdiff.evaluation.report import (
    BEST,
    WORST,
    grouped,
    in_unit,
    ranked,
    unit_in_words,
    write_html,
)
from medsegdiff.evaluation.viewer import DIFFERENCES
from medsegdiff.evaluation.wording import sentences
from medsegdiff.metrics.table import GROUPS, TABLE, names_in
from medsegdiff.viz.pictures import COLOURS
from tests.evaluation.small_reports import bins, rated, report


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


def test_lengths_are_shown_in_the_unit_of_the_cases() -> None:
    assert unit_in_words("mm") == "mm" and unit_in_words(["pixel"]) == "pixels"
    shown = in_unit(TABLE["hd95_mm"], "pixels")
    assert shown.unit == "pixels" and shown.heading == TABLE["hd95_mm"].heading.replace(
        "(mm)", "(pixels)"
    )
    assert "(pixels)" in shown.heading
    assert in_unit(TABLE["dice"], "pixels") is TABLE["dice"]


def test_the_extreme_cases_come_first_and_equal_ones_by_name() -> None:
    records = [{"case": f"{i:02d}", "dice": {"mean": 0.5}} for i in range(20)]
    worst, best = ranked(records[::-1])
    assert [one["case"] for one in worst] == [f"{i:02d}" for i in range(12)]
    assert [one["case"] for one in best] == ["19", "18", "17"]


def test_groups_and_their_metrics_keep_their_order() -> None:
    assert grouped(["ece", "iou", "dice"]) == {"masks": ["iou", "dice"], "calibration": ["ece"]}


def test_what_cannot_be_shown_is_told_and_the_rest_is(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest: Any = SimpleNamespace(labels={0: "background", 1: "Head", 2: "Tail"})
    records = [{"case": name, "dice": {"mean": n / 10}} for n, name in enumerate("abcd")]
    cases: Any = {name: f"case {name}" for name in "abcd"}
    seen: list[Any] = []

    def view(case: Any, *rest: Any) -> Any:
        seen.append((case, *rest))
        if case == "case a":
            raise InputError("doe.nii", "is empty", "Get it again")
        return case

    monkeypatch.setattr(report_module, "read_case_view", view)
    monkeypatch.setattr(report_module, "is_volume", lambda shown: shown != "case c")
    monkeypatch.setattr(report_module, "volumes", lambda shown, labels: {"of": shown, "in": labels})
    found = report_module._viewed(records, cases, manifest, Path("predictions"))
    assert found == [
        {"case": "b", "dice": 0.1, "of": "case b", "in": {1: "Head", 2: "Tail"}},
    ]
    assert seen == [(f"case {name}", manifest, Path("predictions")) for name in "abc"]
    assert report_module._or_reason(view, "case a") == "is empty. Get it again"


def test_the_page_is_given_all_that_it_shows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        report_module, "render", lambda name, **rest: given.update(rest, name=name) or "page"
    )
    monkeypatch.setattr(report_module, "case_picture", lambda case, *of: (case, *of))
    monkeypatch.setattr(report_module, "_viewed", lambda *of: [])
    for chart in ("doubt_chart", "diversity_chart"):
        monkeypatch.setattr(report_module, chart, lambda of, name=chart: (name, of))
    found = report()
    found["settings"] |= {"unit": ["mm", "pixel"], "labels": {"a": "Head", "b": "Tail"}}
    found["summary"] |= {"ece": {}, "guarantee": {"level": 0.9, "n_cases": 1}}
    found["summary"]["guarantee"] |= {
        name: {"mean": 0.5} for name in ("missed_fraction", "wrong_fraction", "volume_coverage")
    }
    found["cases"] = [
        {"case": f"{i:02d}", "patient": f"{i:02d}", "dice": {"mean": i / 20}, "uncertainty": {}}
        for i in range(13)
    ]
    cases: Any = [SimpleNamespace(id=f"{i:02d}") for i in range(13)]
    manifest: Any = SimpleNamespace(labels={})
    write_html(tmp_path / "page.html", found, manifest, cases, tmp_path)
    assert (tmp_path / "page.html").read_text() == "page"
    assert given["name"] == "report" and given["report"] is found
    assert given["summary"] is found["summary"] and given["labels"] == {"a": "Head", "b": "Tail"}
    assert given["columns"] == ["a", "b", "mean"]
    assert given["colours"] == {"a": COLOURS[0], "b": COLOURS[1]}
    assert set(given["table"]) == {"dice", "ece", "uncertainty_error_auroc"}
    assert given["unit"] == "mm or pixels" and given["headings"] == GROUPS
    assert given["groups"] == grouped(["dice", "ece", "uncertainty_error_auroc"])
    assert given["sentences"] == sentences(found)
    assert given["reliability"] == reliability_charts(found)
    assert given["doubt"] == ("doubt_chart", found)
    assert given["diversity"] == ("diversity_chart", found)
    assert given["guarantee"] is found["summary"]["guarantee"]
    for part, names in (("worst", range(12)), ("best", (12,))):
        assert given[part] == [
            {"record": found["cases"][i], "picture": (cases[i], manifest, tmp_path)} for i in names
        ]
    assert given["variance_top"] == 0.5 and given["volumes"] == [] and given["niivue"] is None
    assert given["differences"] == DIFFERENCES and given["resamples"] == 2000
    assert given["patients"] is False
    found["settings"]["labels"] = {"a": "Head"}
    found["cases"][3]["patient"] = "patient 1"
    write_html(tmp_path / "page.html", found, manifest, cases, tmp_path)
    assert given["columns"] == ["a"] and given["variance_top"] == 0.25 and given["patients"] is True
