"""From nested regions to classes: exact where the regions follow from classes."""

from __future__ import annotations

import numpy as np
import pytest

from medsegdiff.other_models.region_classes import (
    classes_of_regions,
    is_nested,
    mask_of_regions,
)

CHAIN = [frozenset({1, 2, 3}), frozenset({2, 3}), frozenset({3})]
TREE = [frozenset({1, 2, 3, 4}), frozenset({2}), frozenset({3, 4}), frozenset({4})]


@pytest.mark.parametrize(("regions", "order"), [(CHAIN, [1, 2, 3]), (TREE, [1, 2, 3, 4])])
@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 5)])
def test_classes_are_got_back_from_the_sums_over_regions(
    regions: list[frozenset[int]], order: list[int], shape: tuple[int, ...]
) -> None:
    labels = sorted(set().union(*regions))
    classes = np.random.default_rng(0).dirichlet(np.ones(len(labels) + 1), size=shape)
    classes = np.moveaxis(classes, -1, 0).astype(np.float32)
    maps = np.stack([classes[sorted(region)].sum(axis=0) for region in regions])
    found = classes_of_regions(maps, regions, order)
    for label in (0, *labels):
        np.testing.assert_allclose(found[label], classes[label], atol=1e-5)


def test_regions_that_contradict_each_other_still_give_probabilities() -> None:
    maps = np.random.default_rng(1).random((4, 6, 7)).astype(np.float32)
    found = classes_of_regions(maps, TREE, [1, 2, 3, 4])
    stacked = np.stack(list(found.values()))
    assert stacked.min() >= 0.0
    np.testing.assert_allclose(stacked.sum(axis=0), 1.0, atol=1e-5)
    inner = found[2] + found[3] + found[4]
    assert (inner <= maps[0] + 1e-5).all()  # no more than the region that holds them


def test_the_last_region_above_a_half_has_the_voxel() -> None:
    maps = np.array([[0.9, 0.9, 0.4], [0.2, 0.8, 0.9]], dtype=np.float32)
    assert mask_of_regions(maps, [1, 2]).tolist() == [1, 2, 2]


@pytest.mark.parametrize(
    ("regions", "nested"),
    [
        (CHAIN, True),
        (TREE, True),
        ([frozenset({1}), frozenset({2})], True),
        ([frozenset({1, 2}), frozenset({2, 3})], False),
        ([frozenset({1}), frozenset({1})], False),
    ],
)
def test_nested(regions: list[frozenset[int]], nested: bool) -> None:
    assert is_nested(regions) is nested
