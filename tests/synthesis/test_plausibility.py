"""Rules of masks, each broken once."""

import numpy as np
import pytest

from medsegdiff.synthesis.plausibility import broken_rules, learn_rules

SIZES = [(12, 10), (12, 10, 8)]


def mask(size: tuple[int, ...], side: int, value: int = 1) -> np.ndarray:
    found = np.zeros(size, dtype=np.uint8)
    found[(slice(1, 1 + side),) * len(size)] = value
    return found


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_training_masks_obey_the_rules_that_they_teach(size: tuple[int, ...]) -> None:
    masks = [mask(size, side) for side in (3, 4, 5)]
    rules = learn_rules(masks, 0.001, [1])
    assert rules[1].volume_ml == pytest.approx((0.001 * 3 ** len(size), 0.001 * 5 ** len(size)))
    assert [broken_rules(one, 0.001, rules) for one in masks] == [[], [], []]


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_what_breaks_a_rule_is_named(size: tuple[int, ...]) -> None:
    rules = learn_rules([mask(size, 3), mask(size, 5)], 0.001, [1])
    assert broken_rules(mask(size, 2), 0.001, rules) == ["volume"]
    assert broken_rules(mask(size, 6), 0.001, rules) == ["volume"]
    assert broken_rules(np.zeros(size, dtype=np.uint8), 0.001, rules) == ["empty"]
    torn = mask(size, 4)
    torn[(-2,) * len(size)] = 1
    assert broken_rules(torn, 0.001, rules) == ["components"]
    both = mask(size, 2)
    both[(-2,) * len(size)] = 1
    assert broken_rules(both, 0.001, rules) == ["volume", "components"]


def test_margin_widens_the_range() -> None:
    rules = learn_rules([mask((12, 10), 3), mask((12, 10), 5)], 1.0, [1], margin=0.5)
    assert rules[1].volume_ml == (4.5, 37.5)
    assert broken_rules(mask((12, 10), 6), 1.0, rules) == []


def test_a_class_that_was_empty_once_may_be_empty() -> None:
    rules = learn_rules([np.zeros((4, 4), dtype=np.uint8), mask((4, 4), 2)], 1.0, [1])
    assert broken_rules(np.zeros((4, 4), dtype=np.uint8), 1.0, rules) == []


def test_corners_do_not_hold_a_component_together() -> None:
    rules = learn_rules([np.eye(3, dtype=np.uint8)], 1.0, [1])
    assert rules[1].components == 3


def test_no_mask_teaches_nothing() -> None:
    with pytest.raises(ValueError, match="mask"):
        learn_rules([], 1.0, [1])
