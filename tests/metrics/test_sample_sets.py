"""Measures of sets of masks against loops over pairs, all matchings, and analytic cases."""

from __future__ import annotations

import math
from itertools import combinations, permutations

import numpy as np
import pytest
from scipy.stats import pearsonr

from medsegdiff.metrics.sample_sets import (
    collective_insight,
    d_max,
    diversity,
    diversity_agreement,
    ged2,
    hm_iou,
    pairwise_dice,
    pairwise_iou,
    s_ncc,
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


def naive_variances(x: np.ndarray) -> list[float]:
    """Variance over voxels of the difference of each two masks."""
    return [float(np.var(a.astype(int) - b.astype(int))) for a, b in combinations(x, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_collective_insight_agrees_with_loops(shape: tuple[int, ...]) -> None:
    s, r = masks(5, shape, 0) & masks(6, shape, 2)[1:], masks(3, shape, 1)
    found = r.any(axis=0)
    s_c = (s.any(axis=0) & found).sum() / found.sum()
    best = np.mean([max(2 * iou(x, y) / (1 + iou(x, y)) for x in s) for y in r])
    v_s, v_r = naive_variances(s), naive_variances(r)
    d_a = 1 - (abs(min(v_s) - min(v_r)) + abs(max(v_s) - max(v_r))) / 2
    assert diversity_agreement(s, r) == pytest.approx(d_a)
    assert d_a < 0.99
    expected = 3 * s_c * best * d_a / (s_c + best + d_a)
    assert collective_insight(s, r) == pytest.approx(expected)


def test_collective_insight_of_equal_sets_is_one_and_of_inventions_zero() -> None:
    s = masks(4, (5, 5), 0)
    assert collective_insight(s, s) == pytest.approx(1.0)
    empty = np.zeros_like(s)
    assert collective_insight(empty, empty) == pytest.approx(1.0)
    assert collective_insight(s, empty) == collective_insight(empty, s) == 0.0


def test_diversity_agreement_of_halves_and_of_single_masks() -> None:
    # Differences of +1 and -1 on half of the voxels each have variance 1; equal masks have none.
    half = np.array([[[True, False]], [[False, True]]])
    assert diversity_agreement(half, half[[0, 0]]) == 0.0
    assert diversity_agreement(half, half) == 1.0
    assert math.isnan(diversity_agreement(half, half[:1]))
    assert math.isnan(collective_insight(half[:1], half))


def naive_s_ncc(samples: np.ndarray, raters: np.ndarray, classes: int) -> float:
    """The definition, with one-hot samples as clamped probabilities."""

    def one_hot(labels: np.ndarray) -> np.ndarray:
        return np.stack([labels == c for c in range(classes)]).astype(float)

    def cross_entropy(target: np.ndarray, sample: np.ndarray) -> np.ndarray:
        return -(target * np.log(sample + 1e-8)).sum(axis=0)

    s, y = [one_hot(x) for x in samples], [one_hot(x) for x in raters]
    mean = np.mean(s, axis=0)
    within = np.mean([cross_entropy(mean, x) for x in s], axis=0).ravel()
    between = [np.mean([cross_entropy(t, x) for x in s], axis=0).ravel() for t in y]
    return float(np.mean([pearsonr(within, one).statistic for one in between]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", [2, 3])
def test_s_ncc_agrees_with_its_definition(shape: tuple[int, ...], classes: int) -> None:
    rng = np.random.default_rng(0)
    samples, raters = (rng.integers(0, classes, (n, *shape)) for n in (5, 3))
    samples[:, 0] = 0  # all agree on some voxels
    found = sample_set_metrics(samples, raters, range(1, classes))["s_ncc"]
    assert found[0] == pytest.approx(naive_s_ncc(samples, raters, classes))
    for value, one in enumerate(found[1:], start=1):
        by_class = (samples == value).astype(int), (raters == value).astype(int)
        assert one == pytest.approx(naive_s_ncc(*by_class, 2))


def test_s_ncc_of_the_same_doubt_and_of_none() -> None:
    # Both sets waver over the same two voxels, and agree on the others.
    s = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    assert s_ncc(s, s) == pytest.approx(pearsonr([0, 1, 1, 0], [0, 1, 1, 0]).statistic)
    assert s_ncc(s, 1 - s) < 0.0
    assert math.isnan(s_ncc(s[[0, 0]], s))
    assert math.isnan(s_ncc(np.zeros_like(s), s))


def test_several_classes_are_averaged_before_matching() -> None:
    rng = np.random.default_rng(0)
    samples, raters = rng.integers(0, 3, (4, 5, 5)), rng.integers(0, 3, (4, 5, 5))
    found = sample_set_metrics(samples, raters, [1, 2])
    by_class = [pairwise_iou(samples == c, raters == c) for c in (1, 2)]
    assert found["hm_iou"] == pytest.approx(
        [hm_iou(np.mean(by_class, axis=0)), *(hm_iou(matrix) for matrix in by_class)]
    )
    for name in ("ged2", "ci", "diversity", "rater_diversity"):  # linear, or averaged at the end
        assert found[name][0] == pytest.approx(np.mean(found[name][1:]))
