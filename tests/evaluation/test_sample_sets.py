"""Measures of sets of masks against loops over pairs, all matchings, and analytic cases."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from medsegdiff.evaluation.sample_sets import (
    d_max,
    diversity,
    ged2,
    hm_iou,
    pairwise_dice,
    pairwise_iou,
    sample_set_metrics,
)

SHAPES = [(9, 8), (6, 5, 4)]


def masks(count: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random masks; the first one is empty."""
    found = np.random.default_rng(seed).random((count, *shape)) < 0.4
    found[0] = False
    return found


def iou(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


@pytest.mark.parametrize("shape", SHAPES)
def test_pairwise_overlaps_agree_with_loops(shape: tuple[int, ...]) -> None:
    a, b = masks(3, shape, 0), masks(4, shape, 1)
    expected = np.array([[iou(x, y) for y in b] for x in a])
    np.testing.assert_allclose(pairwise_iou(a, b), expected)
    np.testing.assert_allclose(pairwise_dice(a, b), 2 * expected / (1 + expected))
    assert pairwise_iou(a, b)[0, 0] == 1.0
    assert pairwise_iou(a, b)[0, 1] == 0.0


@pytest.mark.parametrize("shape", SHAPES)
def test_ged2_agrees_with_loops(shape: tuple[int, ...]) -> None:
    s, r = masks(5, shape, 0), masks(3, shape, 1)

    def mean_distance(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean([1 - iou(a, b) for a in x for b in y]))

    expected = 2 * mean_distance(s, r) - mean_distance(s, s) - mean_distance(r, r)
    found = ged2(pairwise_iou(s, r), pairwise_iou(s, s), pairwise_iou(r, r))
    assert found == pytest.approx(expected)


def test_ged2_of_equal_sets_is_zero_and_of_disjoint_constants_two() -> None:
    s = masks(4, (5, 5), 0)
    own = pairwise_iou(s, s)
    assert ged2(own, own, own) == pytest.approx(0.0)
    left = np.tile(np.array([[True, False]]), (3, 1, 1))
    same, apart = pairwise_iou(left, left), pairwise_iou(left, ~left)
    assert ged2(apart, same, same) == pytest.approx(2.0)


def test_hm_iou_is_the_best_of_all_matchings() -> None:
    s, r = masks(4, (6, 6), 0), masks(2, (6, 6), 1)
    repeated = np.concatenate([r, r])
    best = max(np.mean([iou(a, repeated[i]) for a, i in zip(s, order, strict=True)])
               for order in permutations(range(4)))  # fmt: skip
    assert hm_iou(pairwise_iou(s, r)) == pytest.approx(best)
    assert hm_iou(pairwise_iou(r, s)) == pytest.approx(best)


def test_hm_iou_repeats_to_the_least_common_multiple() -> None:
    # Two samples, three raters: of six copies each, a third of the first sample has no like.
    iou_sr = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    assert hm_iou(iou_sr) == pytest.approx(5 / 6)


def test_d_max_takes_the_best_sample_of_each_rater() -> None:
    assert d_max(np.array([[0.2, 0.9], [0.5, 0.1]])) == pytest.approx(0.7)


def test_diversity_includes_pairs_of_a_mask_with_itself() -> None:
    assert diversity(np.eye(4)) == pytest.approx(3 / 4)
    assert diversity(np.ones((4, 4))) == 0.0


def test_several_classes_are_averaged_before_matching() -> None:
    rng = np.random.default_rng(0)
    samples, raters = rng.integers(0, 3, (4, 5, 5)), rng.integers(0, 3, (4, 5, 5))
    found = sample_set_metrics(samples, raters, [1, 2])
    by_class = [pairwise_iou(samples == c, raters == c) for c in (1, 2)]
    assert found["hm_iou"] == pytest.approx(
        [hm_iou(np.mean(by_class, axis=0)), *(hm_iou(matrix) for matrix in by_class)]
    )
    for name in ("ged2", "diversity", "rater_diversity"):  # linear, so the order is the same
        assert found[name][0] == pytest.approx(np.mean(found[name][1:]))
