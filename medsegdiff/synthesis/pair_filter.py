"""Filter of drawn pairs, which keeps plausible masks, images that show them, and no copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medsegdiff.synthesis.copies import aligned_distances, copy_threshold, nearest
from medsegdiff.synthesis.draw import Pair
from medsegdiff.synthesis.plausibility import ClassRule, broken_rules, learn_rules

RULES = ("empty", "volume", "components", "agreement", "copy")
"""Names of the rules that a pair may break."""


@dataclass(frozen=True)
class Criteria:
    """Limits of the filter.

    Attributes:
        volume_margin: Fraction by which a class may be smaller than the smallest real one, or
            larger than the largest.
        agreement: Least mean Dice between a drawn mask and the one that a segmenter finds in the
            drawn image.
        copy_percentile: Percentile of the distances of real images to their nearest; an image that
            is nearer to a training image is a copy.
        coarse: Side of the patches in which images are compared, in voxels.
        shift: Greatest shift of an image over another, in such patches.
        mirror_axes: Spatial axes along which mirror images are compared too.
    """

    volume_margin: float = 0.1
    agreement: float = 0.7
    copy_percentile: float = 1.0
    coarse: int = 2
    shift: int = 2
    mirror_axes: Sequence[int] = ()


@dataclass(frozen=True)
class Verdict:
    """Result of the filter for a pair.

    Attributes:
        broken: Rules that the pair breaks, of ``RULES``.
        distance: Distance of its image to the nearest training image.
        nearest: Number of that training image.
        agreement: Mean Dice with the segmenter; None without one, or for an empty mask.
    """

    broken: list[str]
    distance: float
    nearest: int
    agreement: float | None = None


@dataclass
class PairFilter:
    """Compares drawn pairs with the training pairs.

    Args:
        images: Training images (N, C, *spatial), on the grid of the drawn ones.
        labels: Class numbers (N, *spatial) of the training images.
        classes: Class numbers of the foreground.
        voxel_ml: Volume of a voxel, in ml.
        criteria: Limits of the filter.
    """

    images: Tensor
    labels: Tensor
    classes: Sequence[int]
    voxel_ml: float
    criteria: Criteria
    rules: dict[int, ClassRule] = field(init=False)
    real_distances: Tensor = field(init=False)
    threshold: float = field(init=False)

    def __post_init__(self) -> None:
        margin = self.criteria.volume_margin
        masks = list(self.labels.numpy())
        self.rules = learn_rules(masks, self.voxel_ml, self.classes, margin)
        self.real_distances, _ = nearest(self._distances(self.images), same=True)
        self.threshold = copy_threshold(self.real_distances, self.criteria.copy_percentile)

    def judge(self, pairs: Sequence[Pair], found: Sequence[Tensor | None]) -> list[Verdict]:
        """Verdicts on drawn pairs.

        Args:
            pairs: Pairs as drawn.
            found: Class numbers (*spatial) that a segmenter finds in each image; None: no check.
        """
        distances, indices = nearest(self._distances(torch.stack([p.image for p in pairs])))
        verdicts = []
        for pair, mask, distance, index in zip(pairs, found, distances, indices, strict=True):
            broken = broken_rules(pair.label.numpy(), self.voxel_ml, self.rules)
            agreed = None if mask is None else mean_dice(pair.label, mask, self.classes)
            if agreed is not None and agreed < self.criteria.agreement:
                broken.append("agreement")
            if float(distance) < self.threshold:
                broken.append("copy")
            verdicts.append(Verdict(broken, float(distance), int(index), agreed))
        return verdicts

    def described(self, classes: dict[int, str]) -> dict[str, Any]:
        """The rules it has learned, for the record."""
        return {
            "rules": {
                classes[value]: {"volume_ml": list(rule.volume_ml), "components": rule.components}
                for value, rule in self.rules.items()
            },
            "copy_distance": self.threshold,
            "real_distances": sorted(self.real_distances.tolist()),
        }

    def _distances(self, images: Tensor) -> Tensor:
        how = self.criteria
        return aligned_distances(
            images, self.images, shift=how.shift, coarse=how.coarse, mirror_axes=how.mirror_axes
        )


def mean_dice(one: Tensor, other: Tensor, classes: Sequence[int]) -> float:
    """Mean over the classes of the Dice of two label maps; 1 where both have none of a class.

    Example:
        >>> mean_dice(torch.tensor([1, 1, 2, 0]), torch.tensor([1, 0, 2, 0]), [1, 2])
        0.8333...
    """
    scores = []
    for value in classes:
        a, b = one == value, other == value
        total = int(a.sum() + b.sum())
        scores.append(2.0 * int((a & b).sum()) / total if total else 1.0)
    return float(np.mean(scores))
