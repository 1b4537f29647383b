"""What is told of a case as a whole, and of the places of a scan."""

from __future__ import annotations

import json

import numpy as np

from medsegdiff.core.types import Features
from medsegdiff.triage import KnownCase, Triage, fit_triage
from medsegdiff.triage.triage import of_whole_case, present


def place(rng: np.random.Generator, shift: float = 0.0) -> Features:
    own = float(rng.normal(2.0, 0.5))
    return {
        "geometry": {"spacing 1 (mm)": 0.0, "extent 1 (mm)": float(rng.normal(4.0, 0.1))},
        "intensity": {f"quantile {i}": float(rng.normal(shift)) for i in range(5)},
        "ensemble": {
            "expected Dice of class 1": own,
            "volume of class 1": float(rng.normal(7.0, 0.3)),
            "highest probability of class 1": 5.0,
            "members with class 1": 1.0,
        },
    }


def known_cases(n: int = 40) -> list[KnownCase]:
    rng, found = np.random.default_rng(0), []
    for i in range(n):
        one = place(rng)
        odds = one["ensemble"]["expected Dice of class 1"] + 0.1 * rng.normal()
        dice = float(1.0 / (1.0 + np.exp(-odds)))
        found.append(KnownCase(f"{i}", (one,), {"nodule": dice}, {"nodule": True}))
    return found


def test_a_case_like_the_others_and_one_that_is_not() -> None:
    triage, rng = fit_triage(known_cases(), ["nodule"]), np.random.default_rng(1)
    like, unlike = (place(rng),), (place(rng, shift=9.0),)
    assert (triage.unlike_training(like) or {})["p_value"] > 0.05
    told = triage.unlike_training(unlike)
    assert told is not None and told["p_value"] < 0.05 and told["reasons"]
    scores = [(triage.review(one) or {})["score"] for one in (like, unlike)]
    assert scores[1] < scores[0]


def test_the_figures_on_cases_left_out() -> None:
    checked = fit_triage(known_cases(), ["nodule"]).checked
    assert checked["nodule"]["rank_correlation"] > 0.7
    assert checked["flagged"] <= 0.1


def test_the_least_familiar_place_counts_as_often_as_there_are_places() -> None:
    triage, rng = fit_triage(known_cases(), ["nodule"]), np.random.default_rng(1)
    first, second = place(rng), place(rng, shift=9.0)
    one, two = triage.unlike_training([second]), triage.unlike_training([first, second])
    assert one is not None and two is not None
    assert two["p_value"] == round(min(1.0, 2 * one["p_value"]), 5)


def test_places_of_a_scan_have_no_extent() -> None:
    rng = np.random.default_rng(0)
    first, second = place(rng), place(rng)
    del second["geometry"]["extent 1 (mm)"]
    whole = of_whole_case([first, second])
    assert list(whole["geometry"]) == ["spacing 1 (mm)"]
    volumes = [one["ensemble"]["volume of class 1"] for one in (first, second)]
    assert whole["ensemble"]["volume of class 1"] == np.mean(volumes)


def test_without_a_fit_presence_is_the_share_of_members() -> None:
    one = place(np.random.default_rng(0))
    one["ensemble"]["members with class 1"] = 0.25
    assert present([one], ["nodule"]) == {"nodule": 0.25}


def test_it_survives_being_written() -> None:
    triage, rng = fit_triage(known_cases(), ["nodule"]), np.random.default_rng(2)
    again = Triage.from_json(json.loads(json.dumps(triage.to_json())))
    case = (place(rng),)
    assert again.review(case) == triage.review(case)
    assert again.unlike_training(case) == triage.unlike_training(case)


def test_few_cases_tell_nothing() -> None:
    triage = fit_triage(known_cases(4), ["nodule"])
    case = (place(np.random.default_rng(0)),)
    assert triage.unlike_training(case) is None and triage.review(case) is None
