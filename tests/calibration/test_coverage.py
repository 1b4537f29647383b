"""Fits on arrays, and what they reach on patients that were left out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from medsegdiff.calibration.coverage import split_coverage
from medsegdiff.calibration.fit import (
    MOST_VOXELS,
    drawn_voxels,
    fit_calibration,
)
from medsegdiff.calibration.voxels import CaseVoxels
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
