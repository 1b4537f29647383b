"""Fits on arrays, and what they reach on patients that were left out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from medsegdiff.calibration.coverage import cross_fitted, split_coverage
from medsegdiff.calibration.fit import (
    MOST_VOXELS,
    CaseVoxels,
    drawn_voxels,
    fit_calibration,
)
from medsegdiff.core.errors import InputError

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
                reference=label.astype(np.uint8),
                region=region,
                share=np.eye(3, dtype=np.float32)[:, label],
                class_region=np.stack([region] * 3),
                run={},
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
    found = split_coverage(cohort(120, voxels=1000), SLUGS, levels=(0.9,), splits=25)["0.9"]
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
    assert few["outer_holds"]["head"] == 1.0 and np.isnan(few["outer_size"]["head"])
    assert few["inner_right"]["head"] == 1.0 and np.isnan(few["volume_width"]["head"])


def test_cross_fitting_lowers_the_calibration_error() -> None:
    crossed = cross_fitted(cohort(30), SLUGS)
    for slug in SLUGS:
        before, after = (crossed[when]["ece_roi_pooled"][slug] for when in ("before", "after"))
        assert after < 0.5 * before
    of_one = cross_fitted(cohort(30), SLUGS, "temperature")
    assert of_one["after"]["dice"] == of_one["before"]["dice"]  # the order of classes stays


def test_of_many_voxels_some_are_drawn_from_every_case() -> None:
    cases = cohort(3, voxels=MOST_VOXELS // 2)
    p, share, weight = drawn_voxels(cases)
    assert p.shape == share.shape and abs(p.shape[1] - MOST_VOXELS) <= 3
    assert len(weight) == p.shape[1]


def test_a_small_case_counts_as_much_as_a_large_one() -> None:
    small, large = cohort(1, voxels=40)[0], cohort(2, voxels=4000)[1]
    _, share, weight = drawn_voxels([small, large])
    first = small.share.shape[1]
    assert 0 < first < share.shape[1] - first
    assert weight[:first].sum() == pytest.approx(weight[first:].sum())


def test_references_that_are_all_empty_are_told() -> None:
    (case,) = cohort(1)
    empty = CaseVoxels(
        case.case,
        case.patient,
        case.probability,
        np.zeros_like(case.reference),
        np.zeros_like(case.region),
        case.share[:, :0],
        np.zeros_like(case.class_region),
        {},
    )
    with pytest.raises(InputError, match="no rater has marked"):
        fit_calibration([empty], SLUGS)
    both = fit_calibration([empty, *cohort(3)], SLUGS)
    assert both.n == 4 and both.missed["head"][-1] < 1.0
