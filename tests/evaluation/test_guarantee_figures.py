"""Guarantees of segmented cases against references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from medsegdiff.core.types import Geometry
from medsegdiff.data.predictions import Prediction
from medsegdiff.evaluation.guarantee_figures import (
    case_guarantee,
    count_fitted,
    guarantee_sentences,
    summarise_guarantee,
)
from medsegdiff.metrics.guaranteed import covered, missed_fraction, wrong_fraction

CLASSES = {1: "head", 2: "tail"}
GEOMETRY = Geometry((4, 5), np.diag([2.0, 1.0, 5.0, 1.0]))


def prediction(inner: np.ndarray, outer: np.ndarray, shape: list[int]) -> Prediction:
    """A guarantee of the first class; of the second all and nothing, without an upper limit."""
    none, every = np.zeros(outer.shape, bool), np.ones(outer.shape, bool)
    nothing = {"volume_ml": [0.0, None], "vacuous": ["outer", "inner", "volume"]}
    classes = {"head": {"volume_ml": [0.05, 0.07], "vacuous": []}, "tail": nothing}
    return Prediction(
        seg=np.zeros(outer.shape, np.uint8),
        mean={},
        variance={},
        entropy=None,
        members=None,
        anchor=None,
        run={"shape": shape, "guarantee": {"level": 0.9, "classes": classes}},
        guarantee={"head": (inner, outer), "tail": (none, every)},
    )


def test_a_case_by_hand() -> None:
    hard = np.zeros((4, 5), np.uint8)
    hard[0, :4], hard[0, 4], hard[1, 0] = 1, 2, 1  # five voxels and one
    inner, outer = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    inner[0, 3:], outer[0] = True, True
    found = case_guarantee(prediction(inner, outer, [4, 5, 1]), hard, CLASSES, GEOMETRY)
    said = {name: {k: v for k, v in by.items() if k != "tail"} for name, by in found.items()}
    assert all(np.isnan(by["tail"]) for by in found.values())  # nothing is said of it
    assert said["missed_fraction"] == pytest.approx({"head": 0.2, "mean": 0.2})
    assert said["wrong_fraction"] == pytest.approx({"head": 0.5, "mean": 0.5})
    # five voxels of 2 x 1 x 5 mm are 0.05 ml; as a picture, a millimetre thick, 0.01 ml
    assert said["volume_covered"] == {"head": 1.0, "mean": 1.0}
    picture = case_guarantee(prediction(inner, outer, [4, 5]), hard, CLASSES, GEOMETRY)
    assert picture["volume_covered"]["head"] == 0.0


def test_empty_masks_are_neither_missed_nor_wrong() -> None:
    none, some = np.zeros(3, bool), np.array([True, False, False])
    assert missed_fraction(none, none) == wrong_fraction(none, some) == 0.0
    assert missed_fraction(none, some) == wrong_fraction(some, none) == 1.0


def test_limits_count_as_covered() -> None:
    assert covered([1.0, 2.0], 1.0) and covered([1.0, 2.0], 2.0 + 1e-12)
    assert not covered([1.0, 2.0], 0.99) and not covered([1.0, 2.0], 2.01)
    assert covered([1.0, None], 1e9)


def test_a_volume_that_is_unknown_is_not_one_without_a_limit() -> None:
    hard = np.zeros((4, 5), np.uint8)
    hard[0] = 1
    told = prediction(hard == 1, hard == 1, [4, 5, 1])
    figures = case_guarantee(told, hard, CLASSES, GEOMETRY, all_known=False)
    vacuous = summarise_guarantee([figures], [told.run])["guarantee"]["vacuous"]
    assert vacuous["volume"] == {"head": 0, "tail": 1}


def test_the_summary_is_of_the_cases_that_have_a_guarantee() -> None:
    def case(missed: float) -> dict[str, dict[str, float]]:
        by = {"head": missed, "mean": missed}
        return {"missed_fraction": by, "wrong_fraction": by, "volume_covered": by}

    runs = [{"guarantee": {"level": level}} for level in (0.9, 0.9, 0.95)] + [{}]
    found = summarise_guarantee([case(0.2), case(0.4), {}, {}], runs)["guarantee"]
    assert found["level"] == 0.9 and found["n_cases"] == 2
    assert found["missed_fraction"] == pytest.approx({"head": 0.3, "mean": 0.3})
    assert found["volume_coverage"]["mean"] == pytest.approx(0.3)
    mixed = summarise_guarantee([case(0.2), case(0.4), case(0.3), {}], runs)["guarantee"]
    assert mixed["level"] == [0.9, 0.95]
    assert found["vacuous"] == {key: {"head": 0} for key in ("outer", "inner", "volume")}
    silent = summarise_guarantee([case(0.2), case(float("nan"))], runs[:2])["guarantee"]
    assert silent["missed_fraction"]["head"] == pytest.approx(0.2)
    assert silent["vacuous"]["inner"] == {"head": 1}
    told = guarantee_sentences({"guarantee": silent})
    assert (
        "In 1 of 2 cases the inner mask of head is empty: there the guarantee says nothing." in told
    )
    assert summarise_guarantee([{}], [{}]) == {}


def test_the_sentences_say_so_and_warn() -> None:
    assert guarantee_sentences({"n_fitted": 0}) == []
    by = {"mean": 0.03}
    found = {
        "level": 0.95,
        "missed_fraction": by,
        "wrong_fraction": {"mean": 0.041},
        "volume_coverage": {"mean": 0.9},
    }
    (said,) = guarantee_sentences({"guarantee": found, "n_fitted": 0})
    assert (
        "95 %" in said and "97.0 %" in said and "95.9 %" in said and "90.0 % of the volumes" in said
    )
    warned = guarantee_sentences({"guarantee": found, "n_fitted": 3})
    assert len(warned) == 2 and "3 of these cases" in warned[1]
    used: dict[str, Any] = {"calibration": {"includes_this_case": True}}
    assert count_fitted([used, {"calibration": None}, {}]) == 1


def test_each_sentence_of_a_guarantee_by_its_words() -> None:
    found = {
        "level": [0.9, 0.95],
        "n_cases": 8,
        "missed_fraction": {"mean": 0.25},
        "wrong_fraction": {"mean": 0.125},
        "volume_coverage": {"mean": 0.75},
        "vacuous": {
            "outer": {"head": 1, "tail": 0},
            "inner": {"head": 2},
            "volume": {"tail": 3},
        },
    }
    assert guarantee_sentences({"guarantee": found, "n_fitted": 2}) == [
        "Guarantee of 90 % and 95 %: the outer masks hold 75.0 % of the reference on average, "
        "the inner masks are right in 87.5 % of their volume, "
        "75.0 % of the volumes lie in their interval.",
        "In 1 of 8 cases the outer mask of head is the whole image: there the guarantee says "
        "nothing.",
        "In 2 of 8 cases the inner mask of head is empty: there the guarantee says nothing.",
        "In 3 of 8 cases the volume of tail has no upper limit: there the guarantee says nothing.",
        "The calibration was fitted on 2 of these cases: their figures of calibration and "
        "guarantee are too good. Only cases that it has not seen can confirm them.",
    ]
    unknown = {"mean": float("nan")}
    silent = found | {name: unknown for name in ("missed_fraction", "wrong_fraction")}
    told = guarantee_sentences({"guarantee": silent | {"level": 0.95, "vacuous": {}}})
    assert told == ["Guarantee of 95 %: 75.0 % of the volumes lie in their interval."]
    assert (
        guarantee_sentences({"guarantee": silent | {"volume_coverage": unknown}})[0][:4] == "In 1"
    )


def test_an_empty_inner_mask_is_not_right() -> None:
    hard = np.ones((4, 5), np.uint8)
    given = prediction(np.zeros((4, 5), bool), hard == 1, [4, 5, 1])
    found = case_guarantee(given, hard, CLASSES, GEOMETRY)
    assert np.isnan(found["wrong_fraction"]["head"]) and found["missed_fraction"]["head"] == 0.0
    assert np.isnan(found["wrong_fraction"]["mean"]) and found["volume_covered"]["head"] == 0.0


def test_a_case_without_a_guarantee_has_no_figures() -> None:
    given = prediction(np.ones((4, 5), bool), np.ones((4, 5), bool), [4, 5])
    given = type(given)(**{**vars(given), "guarantee": {}})
    assert case_guarantee(given, np.zeros((4, 5), np.uint8), CLASSES, GEOMETRY) == {}


def test_records_of_older_versions_lack_what_is_vacuous() -> None:
    hard = np.zeros((4, 5), np.uint8)
    hard[0] = 1
    given = prediction(hard == 1, hard == 1, [4, 5, 1])
    for one in given.run["guarantee"]["classes"].values():
        del one["vacuous"]
    figures = case_guarantee(given, hard, CLASSES, GEOMETRY)
    assert figures["missed_fraction"] == {"head": 0.0, "tail": 0.0, "mean": 0.0}
    assert np.isnan(figures["wrong_fraction"]["tail"])  # its inner mask is empty
    found = summarise_guarantee([figures], [given.run])["guarantee"]["vacuous"]
    assert found["volume"] == {"head": 0, "tail": 0} and found["inner"] == {"head": 0, "tail": 1}
