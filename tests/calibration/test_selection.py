"""A scaling is used only where it helps patients left out, whatever the data are like."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from medsegdiff.calibration import selection, voxels
from medsegdiff.calibration.fit import fit_method
from medsegdiff.calibration.scaling import Scaling
from medsegdiff.calibration.selection import (
    DICE_LOSS,
    FIGURES,
    FOLDS,
    OF_CASES,
    RESAMPLES,
    Candidate,
    _interval,
    case_figures,
    choose_method,
)
from medsegdiff.calibration.voxels import CaseVoxels
from tests.calibration.simulated import Simulation
from tests.calibration.small_fits import small_case


def changes(
    simulation: Simulation, scaling: Scaling, new: list[CaseVoxels]
) -> dict[tuple[str, str], list[float]]:
    """[mean, low, high] change of each figure and class on new cases; above 0 is worse."""
    slugs = [f"class {k}" for k in range(simulation.classes)]
    before = case_figures(new, [case.probability for case in new], slugs)
    after = case_figures(new, [scaling(case.probability) for case in new], slugs)
    signs = {name: -1.0 if name == "dice" else 1.0 for name in OF_CASES}
    return {
        (name, slug): _interval(new, (after[name][slug] - before[name][slug]) * signs[name])
        for name in OF_CASES
        for slug in slugs
    }


@pytest.mark.parametrize(
    ("simulation", "n"),
    [
        (Simulation(radius=0.05, boldness=0.5), 8),
        (Simulation(radius=0.05, boldness=2.0, haze=0.06), 20),
        (Simulation(radius=0.2, boldness=0.5, haze=0.06), 8),
        (Simulation(radius=0.4, boldness=2.0), 20),
        (Simulation(radius=0.4, haze=0.06), 6),
        (Simulation(shape=(96, 96), radius=0.1, sharp=0.5, boldness=0.7), 10),
        (Simulation(classes=3, boldness=0.6, absent=0.3), 12),
        (Simulation(classes=2, boldness=1.5, shift=1.0), 12),
        (Simulation(shape=(16, 16, 16), radius=0.3, boldness=0.6), 8),
    ],
    ids=str,
)
def test_new_cases_are_not_hurt(simulation: Simulation, n: int) -> None:
    cases = simulation.cases(n, seed=0)
    slugs = [f"class {k}" for k in range(simulation.classes)]
    choice = choose_method(cases, slugs)
    new = simulation.cases(40, seed=1)
    for (name, slug), (mean, low, _) in changes(
        simulation, fit_method(cases, choice.method), new
    ).items():
        assert low <= 0.0 or mean < 2e-3, (name, slug, choice.method)
        assert name != "dice" or mean <= DICE_LOSS, slug


def test_a_timid_model_is_mended() -> None:
    simulation = Simulation(boldness=0.5)
    cases = simulation.cases(25, seed=0)
    choice = choose_method(cases, ["class 0"])
    assert choice.method != "none" and "helps patients left out" in choice.reason
    found = changes(simulation, fit_method(cases, choice.method), simulation.cases(40, seed=1))
    assert found["nll", "class 0"][2] < 0.0 and found["ece", "class 0"][2] < 0.0


def test_a_large_faint_background_is_not_turned_into_structure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A structure fills a third of a large picture, whose background is given 6 %."""
    monkeypatch.setattr(voxels, "MOST_INSIDE", 5_000)
    monkeypatch.setattr(voxels, "MOST_OUTSIDE", 1_000)
    simulation = Simulation(shape=(800, 540), radius=0.42, sharp=6.0, boldness=0.7, haze=0.06)
    cases = simulation.cases(42, seed=0)
    filled = np.mean([case.weight[case.reference == 1].sum() / 432_000 for case in cases])
    assert 0.2 < filled < 0.45
    assert all(case.weight.sum() == pytest.approx(432_000) for case in cases)
    choice = choose_method(cases, ["head"])
    new = simulation.cases(20, seed=1)
    found = changes(simulation, fit_method(cases, choice.method), new)
    assert found["dice", "class 0"][0] <= DICE_LOSS
    assert found["ece", "class 0"][2] <= 0.0 and found["nll", "class 0"][2] <= 0.0


def test_all_of_the_image_decides_the_fit() -> None:
    """Background of 6 % far from the outline is scaled down, though none of it is near."""
    cases = Simulation(shape=(96, 96), radius=0.4, sharp=1.0, haze=0.06).cases(10, seed=0)
    scaling = fit_method(cases, "vector")
    assert scaling(np.array([[0.94], [0.06]]))[1, 0] < 0.03


def test_a_method_that_is_asked_for_is_refused_where_it_hurts() -> None:
    cases = Simulation(boldness=1.0).cases(12, seed=0)  # nothing to mend
    choice = choose_method(cases, ["class 0"], "vector")
    assert choice.method == "none" and [c.method for c in choice.candidates] == ["vector"]
    assert choice.candidates[0].refused and "vector: " in choice.reason
    assert choose_method(cases, ["class 0"], "none").candidates == ()


def test_few_patients_are_told() -> None:
    cases = Simulation(boldness=0.5).cases(4, seed=0)
    choice = choose_method(cases, ["class 0"])
    assert choice.method == "none" and "4 patients are too few" in choice.reason


def test_references_without_anything_are_told() -> None:
    cases = Simulation(absent=1.0, haze=0.02).cases(8, seed=0)
    choice = choose_method(cases, ["class 0"])
    assert choice.method == "none" and "no rater has marked anything" in choice.reason


def test_a_structure_of_one_patient_alone_refuses_scaling_rather_than_failing() -> None:
    ill, *well = Simulation().cases(8, seed=0)
    none = [
        replace(
            case,
            share=np.eye(2, dtype=np.float32)[:, [0]].repeat(len(case.weight), 1),
            reference=np.zeros_like(case.reference),
        )
        for case in well
    ]
    choice = choose_method([ill, *none], ["a"])
    assert choice.method == "none"
    assert "temperature: the marked cases are of too few patients" in choice.reason


def test_the_figures_of_a_case_by_hand() -> None:
    """Five voxels that stand for ten; the last two lie outside of the region."""
    p = [0.9, 0.6, 0.2, 0.3, 0.1]
    case = small_case(
        [p], [1, 0, 1, 0, 0], weight=[1, 2, 1, 3, 3], region=[True, True, True, False, False]
    )
    case = replace(case, class_roi=np.array([[True] * 5, [True, True, False, False, False]]))
    found = case_figures([case], [case.probability], ["a"])
    # mask: voxels 1 and 2, three of them; reference: 1 and 3
    assert found["dice"]["a"] == pytest.approx([2 * 1 / (3 + 2)])
    losses = [-math.log(0.9), -2 * math.log(0.4), -math.log(0.2), -3 * math.log(0.7)]
    assert found["nll"]["a"] == pytest.approx([(sum(losses) - 3 * math.log(0.9)) / 10], rel=1e-5)
    gaps = [0.1, 2 * 0.6, 0.8, 3 * 0.3, 3 * 0.1]  # a bin each
    assert found["ece"]["a"] == pytest.approx([sum(gaps) / 10], rel=1e-5)
    assert found["ece_region"]["a"] == pytest.approx([sum(gaps[:3]) / 4], rel=1e-5)
    assert found["ece_roi"]["a"] == pytest.approx([sum(gaps[:2]) / 3], rel=1e-5)
    assert set(found) == set(OF_CASES)
    empty = small_case([[0.1, 0.2]], [0, 0])
    assert case_figures([empty], [empty.probability], ["a"])["dice"]["a"] == [1.0]


def test_the_likelihood_is_of_the_image_relative_to_the_region() -> None:
    case = small_case([[0.9, 0.5, 0.0]], [1, 0, 1], weight=[1, 2, 1], region=[True, False, False])
    found = selection._likelihoods([case], [case.probability])
    loss = -math.log(0.9) - 2 * math.log(0.5) - math.log(1e-7)
    assert found == pytest.approx([loss / 1.0], rel=1e-5)


def test_errors_of_cases_that_go_opposite_ways_are_no_error_of_all() -> None:
    """Pooled, 60 % that come true in one case and not in the other, of as many voxels each."""
    one = small_case([[0.6, 0.6]], [1, 1], name="a", region=[True, False])
    other = small_case([[0.6] * 4], [0] * 4, name="b")
    maps = [one.probability, other.probability]
    found, drawn = selection._pooled([one, other], maps, ["x"])
    assert found["ece_pooled"]["x"] == pytest.approx(0.1)  # half come true, not 60 %
    assert found["ece_region_pooled"]["x"] == pytest.approx(0.1)
    values = drawn["ece_pooled"]["x"]
    assert values.shape == (RESAMPLES,)
    # both patients, or one of them twice: 0.1, 0.4, 0.6
    assert sorted(set(values.round(6))) == [0.1, 0.4, 0.6]
    assert np.mean(values > 0.2) == pytest.approx(0.5, abs=0.05)
    same = replace(other, patient="a")
    _, drawn = selection._pooled([one, same], maps, ["x"])
    assert set(drawn["ece_pooled"]["x"].round(6)) == {0.1}


def test_the_interval_is_over_patients_and_leaves_out_what_is_undefined() -> None:
    cases = [small_case([[0.5]], [0], patient=name) for name in "aabc"]
    mean, low, high = _interval(cases, np.array([0.0, 0.2, 0.4, np.nan]))
    assert mean == pytest.approx((0.1 + 0.4) / 2)
    assert (low, high) == pytest.approx((0.1, 0.4))
    assert np.isnan(_interval(cases, np.full(4, np.nan))).all()
    many = [small_case([[0.5]], [0], name=str(i)) for i in range(100)]
    values = np.random.default_rng(0).normal(1.0, 2.0, 100)
    mean, low, high = _interval(many, values)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.1)


@pytest.mark.parametrize(
    ("figure", "before", "change", "worse"),
    [
        ("ece", 0.1, [0.0011, 0.0001, 0.002], True),
        ("ece", 0.1, [0.0009, 0.0001, 0.002], False),  # less than a hundredth of it
        ("ece", 0.1, [0.0011, 0.0, 0.002], False),  # by chance
        ("ece", 0.1, [float("nan"), 0.1, 0.1], False),
        ("ece", 0.1, [-0.01, -0.02, -0.001], False),
        ("dice", 0.9, [0.0021, -0.1, 0.1], True),
        ("dice", 0.9, [0.0019, -0.1, 0.1], False),
        ("dice", 0.1, [0.0019, 0.001, 0.1], True),
    ],
)
def test_what_counts_as_worse(figure: str, before: float, change: list[float], worse: bool) -> None:
    assert selection._is_worse(figure, before, change) == worse


def test_what_speaks_against_a_method_is_told() -> None:
    assert selection._worse("dice", "head", 0.9, [0.01, 0.0, 0.02]) == (
        "dice of head would get worse on patients left out: 0.9000 -> 0.8900"
    )
    assert selection._worse("ece", "head", 0.1, [0.01, 0.0, 0.02]) == (
        "ece of head would get worse on patients left out: 0.1000 -> 0.1100"
    )
    tried = [Candidate("temperature", {}, refused=("this", "that")), Candidate("vector", {})]
    assert selection._reason("none", tried) == (
        "no scaling is used, since none helps patients left out (temperature: this, and 1 more)"
    )
    assert selection._reason("vector", tried) == (
        "vector scaling helps patients left out, and no figure gets worse beyond chance"
    )


def test_each_case_is_scaled_by_a_fit_to_other_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [small_case([[0.5]], [1], name=f"{i}", patient=f"{i // 2}") for i in range(14)]
    fits: list[set[str]] = []

    def fit(given: list[CaseVoxels], method: str) -> Callable[[np.ndarray], np.ndarray]:
        assert method == "vector"
        fits.append({case.patient for case in given})
        return lambda p: np.full_like(p, len(fits))

    monkeypatch.setattr(selection, "fit_method", fit)
    found = selection.crossed(cases, "vector")
    assert len(fits) == FOLDS and len(found) == len(cases)
    everyone = {case.patient for case in cases}
    assert sorted(name for fitted in fits for name in everyone - fitted) == sorted(everyone)
    assert {len(everyone - fitted) for fitted in fits} == {1, 2}
    for case, scaled in zip(cases, found, strict=True):
        assert case.patient not in fits[int(scaled[0, 0]) - 1]


def test_the_choice_is_told_whole() -> None:
    cases = Simulation(boldness=0.5, shape=(24, 24)).cases(10, seed=0)
    choice = choose_method(cases, ["class 0"])
    told = choice.to_json()
    assert set(told) == {"reason", "before", "candidates"}
    assert set(told["before"]) == set(FIGURES) and told["reason"] == choice.reason
    assert [one.method for one in choice.candidates] == ["temperature", "vector"]
    for one in choice.candidates:
        assert set(one.after) == set(one.change) == set(FIGURES)
        assert told["candidates"][one.method] == {
            "after": one.after,
            "change": one.change,
            "gain": one.gain,
            "refused": list(one.refused),
        }
        scaled = selection.crossed(cases, one.method)
        before, after = (
            case_figures(cases, maps, ["class 0"])
            for maps in ([case.probability for case in cases], scaled)
        )
        for name in OF_CASES:
            change = after[name]["class 0"] - before[name]["class 0"]
            sign = -1 if name == "dice" else 1
            assert one.change[name]["class 0"][0] == pytest.approx(sign * np.nanmean(change))
            assert one.after[name]["class 0"] == pytest.approx(np.nanmean(after[name]["class 0"]))
        for name in ("ece_pooled", "ece_region_pooled"):
            mean, low, high = one.change[name]["class 0"]
            difference = one.after[name]["class 0"] - choice.before[name]["class 0"]
            assert mean == pytest.approx(difference) and low < mean < high


def test_what_was_not_asked_for_is_told() -> None:
    cases = Simulation().cases(4, seed=0)
    assert choose_method(cases, ["class 0"], "none").reason == "no scaling was asked for"
    assert choose_method(cases, ["class 0"]).reason == (
        "4 patients are too few to see whether a scaling helps others: at least 5 are needed"
    )
    empty = Simulation(absent=1.0, haze=0.02).cases(5, seed=0)
    assert choose_method(empty, ["class 0"]).reason == "no rater has marked anything in any case"


def test_a_voxel_that_stands_for_several_counts_so_often_in_the_pool() -> None:
    case = small_case([[0.6, 0.9]], [1, 0], weight=[3, 1], region=[True, False])
    found, _ = selection._pooled([case], [case.probability], ["x"])
    assert found["ece_pooled"]["x"] == pytest.approx((3 * 0.4 + 0.9) / 4)
    assert found["ece_region_pooled"]["x"] == pytest.approx(0.4)
