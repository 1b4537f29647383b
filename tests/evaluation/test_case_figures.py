"""Sets of masks are judged with the voxels and the raters that count."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medsegdiff.evaluation.case_figures import CaseResult, _add_sample_sets, judged_sets
from medsegdiff.metrics.sample_sets import sample_set_metrics

RNG = np.random.default_rng(0)
ANNOTATIONS = RNG.integers(0, 3, (2, 6, 5, 4), dtype=np.uint8)
MEMBERS = RNG.integers(0, 3, (3, 6, 5, 4), dtype=np.uint8)
CLASSES = {1: "head", 2: "tail"}


def data_set(raters: int = 2, spatial_dims: int = 3) -> Any:
    return SimpleNamespace(raters=raters, spatial_dims=spatial_dims)


def added(members: Any, annotations: np.ndarray, manifest: Any) -> CaseResult:
    result, prediction = CaseResult("a", "a", {}, {}), SimpleNamespace(members=members)
    given: Any = prediction
    _add_sample_sets(result, given, annotations, CLASSES, manifest)
    return result


def test_two_raters_are_a_set() -> None:
    found = added(MEMBERS, ANNOTATIONS, data_set())
    expected = sample_set_metrics(MEMBERS, ANNOTATIONS, [1, 2])
    assert set(found.values) == set(expected) and found.planes == {}
    for name, figures in expected.items():
        assert list(found.values[name].values()) == pytest.approx(figures)
        assert list(found.values[name]) == ["mean", "head", "tail"]


@pytest.mark.parametrize(
    ("members", "annotations"), [(None, ANNOTATIONS), (MEMBERS, ANNOTATIONS[:1])]
)
def test_a_case_without_a_set_is_undefined_in_a_data_set_that_has_some(
    members: Any, annotations: np.ndarray
) -> None:
    found = added(members, annotations, data_set())
    assert set(found.values) == set(sample_set_metrics(MEMBERS, ANNOTATIONS, [1]))
    for by_class in found.values.values():
        assert (
            list(by_class) == ["mean", "head", "tail"] and np.isnan(list(by_class.values())).all()
        )
    assert added(members, annotations, data_set(raters=1)).values == {}


def test_planes_are_judged_one_by_one_and_counted() -> None:
    annotations, members = ANNOTATIONS.copy(), MEMBERS.copy()
    annotations[..., 0] = members[..., 0] = 0  # nobody marks the first
    annotations[..., 1], members[..., 2] = 0, 1  # members alone; members that do not differ
    found = added(members, annotations, data_set(spatial_dims=2))
    planes = [sample_set_metrics(members[..., z], annotations[..., z], [1, 2]) for z in (1, 2, 3)]
    for name, by_class in found.values.items():
        columns = np.array([one[name] for one in planes])
        np.testing.assert_allclose(list(by_class.values()), np.nanmean(columns, axis=0))
    assert np.isnan([one["s_ncc"][0] for one in planes]).tolist() == [False, True, False]
    assert found.planes == {"judged": 3, "s_ncc": 2}


def test_voxels_that_a_rater_leaves_open_count_for_nobody() -> None:
    annotations = ANNOTATIONS.copy()
    annotations[1, :, :, 0], annotations[0, 0, 0, 1] = 255, 255
    known = (annotations != 255).all(axis=0)
    ((members, raters),) = judged_sets(MEMBERS, annotations, data_set())
    np.testing.assert_array_equal(members, MEMBERS[:, known])
    np.testing.assert_array_equal(raters, annotations[:, known])
    pairs = judged_sets(MEMBERS, annotations, data_set(spatial_dims=2))
    assert [m.shape for m, _ in pairs] == [(3, 29), (3, 6, 5), (3, 6, 5)]  # none of the first
    ((members, raters),) = judged_sets(MEMBERS, ANNOTATIONS, data_set())
    assert members is MEMBERS and raters is ANNOTATIONS
