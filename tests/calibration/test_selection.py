"""A scaling is used only where it helps patients left out, whatever the data are like."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from medsegdiff.calibration import voxels
from medsegdiff.calibration.fit import fit_method
from medsegdiff.calibration.scaling import Scaling
from medsegdiff.calibration.selection import (
    DICE_LOSS,
    OF_CASES,
    _interval,
    case_figures,
    choose_method,
)
from medsegdiff.calibration.voxels import CaseVoxels
from tests.calibration.simulated import Simulation


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
