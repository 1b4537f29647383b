"""Fits on arrays, and what they reach on patients that were left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from medsegdiff.calibration import coverage
from medsegdiff.calibration.coverage import FIGURES, _add_figures, split_coverage
from medsegdiff.calibration.fit import (
    MOST_VOXELS,
    drawn_voxels,
    fit_calibration,
    fit_method,
    shift,
    shift_sums,
)
from medsegdiff.calibration.fitted import ClassGuarantee
from medsegdiff.calibration.scaling import Scaling
from medsegdiff.calibration.voxels import CaseVoxels
from medsegdiff.core.errors import InputError
from tests.calibration.small_fits import small_case

SLUGS = ("head", "tail")
BOLD = 1.8


def cohort(n: int, voxels: int = 400, per_patient: int = 1) -> list[CaseVoxels]:
    """Cases whose model is bold by a known temperature, and off by a shift of each case."""
    rng, found = np.random.default_rng(0), []
    for i in range(n):
        z = rng.normal(0.0, 2.0, (3, voxels))
        p = softmax(z + rng.normal(0.0, 0.4, (3, 1)), axis=0)
        label = (p.cumsum(axis=0) < rng.random(voxels)).sum(axis=0).clip(0, 2)
        region = np.ones(voxels, bool)
        found.append(
            CaseVoxels(
                case=f"case {i}",
                patient=f"patient {i // per_patient}",
                probability=softmax(BOLD * z, axis=0).astype(np.float32),
                share=np.eye(3, dtype=np.float32)[:, label],
                reference=label.astype(np.uint8),
                weight=np.ones(voxels),
                region=region,
                class_roi=np.stack([region] * 3),
            )
        )
    return found


def test_a_fit_holds_the_mean_risk_of_the_cases_and_their_scores() -> None:
    cases = cohort(12)
    fitted = fit_calibration(cases, SLUGS)
    np.testing.assert_allclose(fitted.scaling.temperature, BOLD, rtol=0.15)
    assert fitted.n == 12 and set(fitted.missed) == set(SLUGS)
    threshold = 0.5
    missed = []
    for case in cases:
        reference = case.reference == 2
        kept = fitted.scaling(case.probability)[2] >= threshold
        missed.append((reference & ~kept).sum() / reference.sum())
    assert fitted.missed["tail"][99] == pytest.approx(np.mean(missed))
    assert len(fitted.volume_scores["tail"]) == 12
    assert sorted(fitted.volume_scores["tail"]) == list(fitted.volume_scores["tail"])


def test_what_is_promised_is_reached_on_patients_left_out() -> None:
    found = split_coverage(
        cohort(120, voxels=1000), SLUGS, "temperature", levels=(0.9,), splits=25
    )["0.9"]
    for slug in SLUGS:
        for name in ("outer_holds", "inner_right", "volume_covered"):
            assert 0.88 <= found[name][slug] <= 0.925, (name, slug)
        assert found["inner_size"][slug] < 1.0 < found["outer_size"][slug]
        assert found["volume_width"][slug] > 0.0


def test_no_patient_stands_on_both_sides() -> None:
    cases = cohort(6, per_patient=3)  # two patients: each split fits on three cases of one
    three = split_coverage(cases, SLUGS, levels=(0.7,), splits=4)["0.7"]
    assert not np.isnan(three["volume_width"]["head"])
    few = split_coverage(cases, SLUGS, levels=(0.8,), splits=4)["0.8"]
    for name in ("outer_holds", "outer_size", "inner_right", "volume_covered", "volume_width"):
        assert np.isnan(few[name]["head"]), name  # nothing is said, so nothing is reached
    for name in ("outer_vacuous", "inner_vacuous", "volume_vacuous"):
        assert few[name]["head"] == 1.0


def test_of_many_voxels_some_are_drawn_from_every_case() -> None:
    cases = cohort(3, voxels=MOST_VOXELS // 2)
    p, share, weight = drawn_voxels(cases)
    assert p.shape == share.shape and abs(p.shape[1] - MOST_VOXELS) <= 3
    assert weight.sum() == pytest.approx(3.0)


def test_a_small_case_counts_as_much_as_a_large_one() -> None:
    small, large = cohort(1, voxels=40)[0], cohort(2, voxels=4000)[1]
    _, share, weight = drawn_voxels([small, large])
    first = small.share.shape[1]
    assert 0 < first < share.shape[1] - first
    assert weight[:first].sum() == pytest.approx(weight[first:].sum())


def test_a_voxel_that_stands_for_two_counts_twice() -> None:
    cases = cohort(8)
    doubled = [replace(c, weight=2.0 * c.weight) for c in cases]
    names = ("probability", "share", "reference", "weight", "region", "class_roi")
    repeated = []
    for c in cases:
        twice: dict[str, Any] = {n: np.concatenate([getattr(c, n)] * 2, axis=-1) for n in names}
        repeated.append(replace(c, **twice))
    one, other = (fit_calibration(given, SLUGS) for given in (doubled, repeated))
    np.testing.assert_allclose(one.scaling.temperature, other.scaling.temperature, rtol=1e-3)
    for slug in SLUGS:
        np.testing.assert_allclose(one.missed[slug], other.missed[slug], atol=5e-3)
        np.testing.assert_allclose(one.wrong[slug], other.wrong[slug], atol=5e-3)


def test_references_that_are_all_empty_are_told() -> None:
    (case,) = cohort(1)
    empty = replace(
        case,
        share=np.eye(3, dtype=np.float32)[:, np.zeros_like(case.reference)],
        reference=np.zeros_like(case.reference),
        region=np.zeros_like(case.region),
        class_roi=np.zeros_like(case.class_roi),
    )
    with pytest.raises(InputError, match="no rater has marked"):
        fit_calibration([empty], SLUGS)
    both = fit_calibration([empty, *cohort(3)], SLUGS)
    assert both.n == 4 and both.missed["head"][-1] < 1.0


def test_what_a_fit_reaches_on_a_case_by_hand() -> None:
    """Six voxels that stand for ten, at a level whose thresholds and interval are known."""
    p = [0.9, 0.7, 0.5, 0.3, 0.1, 0.0]
    case = small_case([p], [1, 0, 1, 1, 0, 0], weight=[1, 2, 1, 1, 2, 3])
    found = figures_of(case, ClassGuarantee(0.6, 0.4, 0.1, (0.25,) * 19))
    # inner: voxels 1 and 2, three; outer: 1 to 3, four; reference: three
    volume = 0.9 + 2 * 0.7 + 0.5 + 0.3 + 2 * 0.1
    doubt = 0.09 + 2 * 0.21 + 0.25 + 0.21 + 2 * 0.09 + 1
    assert volume - 0.25 * doubt < 3 < volume + 0.25 * doubt
    assert found == pytest.approx(
        {
            "outer_vacuous": 0.0,
            "inner_vacuous": 0.0,
            "volume_vacuous": 0.0,
            "outer_holds": 2 / 3,
            "outer_size": 4 / 3,
            "inner_right": 1 / 3,
            "inner_size": 3 / 3,
            "volume_covered": 1.0,
            "volume_width": 0.5 * doubt / 3,
        },
        rel=1e-5,
    )
    nothing = figures_of(case, ClassGuarantee(None, 0.0, 0.1, (0.25,)))
    assert nothing == {"outer_vacuous": 1.0, "inner_vacuous": 1.0, "volume_vacuous": 1.0}
    narrow = figures_of(case, ClassGuarantee(0.6, 0.005, 0.1, (0.0,) * 19))
    assert narrow["volume_covered"] == narrow["outer_vacuous"] == 0.0
    assert narrow["outer_holds"] == 1.0


def test_without_a_structure_sizes_are_undefined() -> None:
    case = small_case([[0.9, 0.2]], [0, 0])
    found = figures_of(case, ClassGuarantee(0.6, 0.1, 0.1, (9.0,) * 19))
    assert found["outer_holds"] == 1.0 and found["inner_right"] == 0.0
    assert found["volume_covered"] == 1.0
    assert not {"outer_size", "inner_size", "volume_width"} & set(found)


def figures_of(case: CaseVoxels, guarantee: ClassGuarantee) -> dict[str, float]:
    """The figures of one case, of those that are said."""
    into: dict[str, dict[str, list[float]]] = {name: {"head": []} for name in FIGURES}

    class Fit:
        """A calibration with this guarantee."""

        def guarantee(self, level: float) -> dict[str, ClassGuarantee]:
            assert level == 0.9
            return {"head": guarantee}

    fit: Any = Fit()
    _add_figures(into, fit, 0.9, case, case.probability)
    return {name: by["head"][0] for name, by in into.items() if by["head"]}


@pytest.mark.parametrize(
    ("patients", "share", "fitted"), [(10, 0.8, 8), (3, 0.8, 2), (2, 0.1, 1), (5, 1.0, 4)]
)
def test_a_share_of_the_patients_is_fitted_on(
    patients: int, share: float, fitted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, seen = cohort(patients, voxels=20), []

    def fit(given: list[CaseVoxels], slugs: Any, method: str, most: int) -> Any:
        seen.append((frozenset(case.case for case in given), method, most))
        return fit_calibration(given, slugs, "none", most)

    monkeypatch.setattr(coverage, "fit_calibration", fit)
    told: Any = []
    split_coverage(
        cases, SLUGS, levels=(0.5,), splits=6, share=share, progress=lambda n: told.append(n) or n
    )
    assert told == [range(6)] and len(seen) == 6
    assert {(len(names), method, most) for names, method, most in seen} == {
        (fitted, "vector", 20_000)
    }
    assert len({names for names, _, _ in seen}) > 1


def test_the_levels_are_named_as_text() -> None:
    found = split_coverage(cohort(4, voxels=20), SLUGS, "none", splits=1)
    assert list(found) == ["0.9", "0.95"]
    assert set(found["0.9"]) == set(FIGURES) and set(found["0.9"]["outer_size"]) == set(SLUGS)


def test_splits_that_mark_nothing_are_left_out() -> None:
    (marked,) = cohort(1, voxels=60)
    empty: dict[str, Any] = {
        "share": np.eye(3, dtype=np.float32)[:, np.zeros_like(marked.reference)],
        "reference": np.zeros_like(marked.reference),
    }
    others = [replace(marked, case=f"{i}", patient=f"{i}", **empty) for i in range(3)]
    found = split_coverage([marked, *others], SLUGS, "vector", levels=(0.5,), splits=8)["0.5"]
    assert found["volume_vacuous"]["head"] == 0.0  # of splits with the marked one alone


def test_the_shift_is_the_foreground_that_is_moved() -> None:
    before = np.array([[0.9, 0.5, 1.0], [0.1, 0.3, 0.0], [0.0, 0.2, 0.0]])
    after = np.array([[0.8, 0.7, 1.0], [0.1, 0.3, 0.0], [0.1, 0.0, 0.0]])
    weight = np.array([2.0, 1.0, 5.0])
    assert shift_sums(before, after, weight) == pytest.approx((2 * 0.1 + 0.2, 2 * 0.1 + 0.5))
    assert shift(before, after, weight) == pytest.approx(0.4 / 1.7)
    assert shift(before, after) == pytest.approx(0.3 / 1.6)
    cases = cohort(3)
    fitted = fit_calibration(cases, SLUGS, "temperature")
    shifts = [shift(c.probability, fitted.scaling(c.probability), c.weight) for c in cases]
    assert fitted.largest_shift == pytest.approx(max(shifts)) and fitted.method == "temperature"


def test_a_fit_without_scaling_changes_nothing() -> None:
    cases = cohort(3)
    assert fit_method(cases, "none") == Scaling.identity(3)
    fitted = fit_calibration(cases, SLUGS, "none")
    assert fitted.largest_shift < 1e-6 and not fitted.scaling.changes
    with pytest.raises(InputError) as told:
        fit_method([replace(cases[0], share=np.eye(3, dtype=np.float32)[:, [0] * 400])], "vector")
    assert str(told.value) == (
        "calibration: no rater has marked anything in any case. "
        "Use cases with references that are not empty"
    )


def test_drawn_voxels_are_those_of_the_case_with_its_weights() -> None:
    case = cohort(1, voxels=50)[0]
    case = replace(case, weight=np.arange(1.0, 51.0), region=np.arange(50) < 10)
    p, share, weight = drawn_voxels([case], 20)
    assert p.shape == (3, 20) and weight.shape == (20,)
    at = [int(np.flatnonzero((column == case.probability.T).all(axis=1))[0]) for column in p.T]
    assert at == sorted(set(at))
    np.testing.assert_array_equal(share, case.share[:, at])
    # 50 voxels by 20, relative to the region of 1 + ... + 10
    np.testing.assert_allclose(weight, case.weight[at] * 50 / 20 / 55)
    assert drawn_voxels([case] * 30, 20)[0].shape == (3, 30)  # one of each at least
