"""The table of metrics: complete, as documented, and each figure that of its own function."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medsegdiff.metrics.class_maps import ClassMaps
from medsegdiff.metrics.overlap import OVERLAP
from medsegdiff.metrics.sample_sets import sample_set_metrics
from medsegdiff.metrics.table import GROUPS, METRICS, TABLE, class_figures, names_in

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


@pytest.fixture
def maps() -> ClassMaps:
    rng = np.random.default_rng(0)
    raters = np.zeros((3, 12, 10, 8), bool)
    for number, rater in enumerate(raters):
        rater[2 + number : 9, 2:8, 1:7] = True
    members = raters[rng.integers(0, 3, 6)] ^ (rng.random((6, 12, 10, 8)) < 0.1)
    mean = members.mean(axis=0)
    return ClassMaps(
        mask=mean > 0.5,
        reference=raters.sum(axis=0) > 1,
        raters=raters,
        spacing=(1.0, 1.0, 2.0),
        mean=mean,
        variance=members.var(axis=0),
        votes=mean,
    )


def test_every_name_is_there_once_and_every_group_is_used() -> None:
    assert len(TABLE) == len(METRICS)
    assert {one.group for one in METRICS} == set(GROUPS)
    assert set(OVERLAP) < set(names_in("masks"))
    for one in METRICS:
        assert one.heading and one.meaning.endswith("."), one.name
        assert [one.of_class, one.of_cases].count(None) == (2 if one.group == "sets" else 1)


def test_sample_sets_give_the_metrics_of_their_group() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (2, 4, 4))
    assert tuple(sample_set_metrics(labels, labels, [1])) == names_in("sets")


def test_a_perfect_segmentation_is_best_in_every_direction(maps: ClassMaps) -> None:
    """With one rater, and a mean that is 1 inside and 0 outside, nothing can be better."""
    truth = maps.raters[0]
    perfect = replace(
        maps, mask=truth, reference=truth, raters=truth[None], mean=truth, votes=truth
    )
    best, worse = (class_figures(each, several_raters=True) for each in (perfect, maps))
    for one in METRICS:
        if one.of_class is None or "variance" in one.needs:
            continue
        sign = 1 if one.better == "higher" else -1
        assert sign * best[one.name] > sign * worse[one.name], one.name
        assert best[one.name] == pytest.approx(1.0 if one.better == "higher" else 0.0, abs=1e-6)


@pytest.mark.parametrize("missing", ["mean", "variance", "votes"])
def test_what_needs_a_map_is_undefined_without_it(maps: ClassMaps, missing: str) -> None:
    without: dict[str, Any] = {missing: None}
    found = class_figures(replace(maps, **without), several_raters=True)
    for name, value in found.items():
        assert np.isnan(value) == (missing in TABLE[name].needs), name


def test_metrics_of_several_raters_are_left_out_with_one(maps: ClassMaps) -> None:
    several, one = (set(class_figures(maps, several_raters=s)) for s in (True, False))
    assert several - one == {"variance_rater_correlation"}


def test_directions_and_units_are_as_documented() -> None:
    """In the tables with such a column, or in the words above the table."""
    checked = set()
    for section in re.split(r"^## ", DOCUMENT.read_text("utf-8"), flags=re.M)[1:]:
        above = re.search(r"(higher|lower) is better", section, re.I)
        lines = [line for line in section.splitlines() if line.startswith("|")]
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:]] for line in lines]
        if not rows:
            continue
        column = rows[0].index("better") if "better" in rows[0] else None
        for row in rows:
            for name in set(re.findall(r"`(\w+)`", row[0])) & set(TABLE):
                said = row[column] if column is not None else above and above[1].lower()
                assert (said or None) == TABLE[name].better, name
                assert TABLE[name].unit in " ".join(row[:3]), name
                checked.add(name)
    assert checked == set(TABLE)
