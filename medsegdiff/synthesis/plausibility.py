"""Plausibility of drawn masks, by rules that are learned from the real ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class ClassRule:
    """What all real masks of one class have in common.

    Attributes:
        volume_ml: Least and greatest volume, in ml.
        components: Greatest number of connected components (by faces).
    """

    volume_ml: tuple[float, float]
    components: int


def learn_rules(
    masks: Iterable[Labels], voxel_ml: float, classes: Collection[int], margin: float = 0.0
) -> dict[int, ClassRule]:
    """The rules that all given masks obey.

    Args:
        masks: Class numbers (*spatial) of each mask; at least one mask.
        voxel_ml: Volume of a voxel, in ml.
        classes: Class numbers of the foreground.
        margin: Fraction by which the range of volumes is widened on both sides.

    Raises:
        ValueError: without a mask.

    Example:
        >>> learn_rules([np.array([[0, 1], [0, 1]]), np.array([[1, 0], [0, 1]])], 1.0, [1])
        {1: ClassRule(volume_ml=(2.0, 2.0), components=2)}
    """
    found = [described(mask, voxel_ml, classes) for mask in masks]
    if not found:
        raise ValueError("rules need a mask at least. Got none.")
    rules = {}
    for value in classes:
        volumes, components = zip(*(of[value] for of in found), strict=True)
        limits = (1.0 - margin) * min(volumes), (1.0 + margin) * max(volumes)
        rules[value] = ClassRule(limits, max(components))
    return rules


def described(
    mask: Labels, voxel_ml: float, classes: Collection[int]
) -> dict[int, tuple[float, int]]:
    """Volume in millilitres and number of components of each class."""
    return {
        value: (float(np.sum(mask == value)) * voxel_ml, ndimage.label(mask == value)[1])
        for value in classes
    }


def broken_rules(mask: Labels, voxel_ml: float, rules: dict[int, ClassRule]) -> list[str]:
    """Names of the rules that a mask breaks: ``empty``, ``volume``, ``components``.

    A class may be empty where it is in a real mask.

    Example:
        >>> broken_rules(np.array([[0, 1], [0, 0]]), 1.0, {1: ClassRule((2.0, 3.0), 1)})
        ['volume']
    """
    broken: dict[str, Any] = {}
    for value, (volume, components) in described(mask, voxel_ml, rules).items():
        low, high = rules[value].volume_ml
        if volume == 0.0 and low > 0.0:
            broken["empty"] = None
        elif not low <= volume <= high:
            broken["volume"] = None
        if components > rules[value].components:
            broken["components"] = None
    return list(broken)
