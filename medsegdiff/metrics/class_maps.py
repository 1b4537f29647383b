"""What is known of one class of one segmented case: what each metric of it is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.metrics import overlap
from medsegdiff.metrics.calibration_error import Reliability, region_of_interest, reliability


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """Maps of one class on one grid; what several metrics share is computed once.

    Attributes:
        mask: Mask (*shape) of the ensemble.
        reference: Mask (*shape) of what more than half of the raters marked.
        raters: Masks (M, *shape), one a rater.
        spacing: Size of a voxel along each axis, in millimetres.
        tolerance_mm: Distance between surfaces that still counts as agreement.
        mean: Mean probability (*shape) in [0, 1], or None.
        variance: Variance (*shape) over the members, at least 0, or None.
        votes: Share (*shape) of the members that mark the voxel, in [0, 1], or None.
        known: Mask (*shape) of where the class is known; elsewhere nothing counts, and masks are
            False. None: everywhere.
        planes: Whether the last axis counts planes that are judged by themselves.
    """

    mask: NDArray[np.bool_]
    reference: NDArray[np.bool_]
    raters: NDArray[np.bool_]
    spacing: Sequence[float]
    tolerance_mm: float = 1.0
    mean: NDArray[Any] | None = None
    variance: NDArray[Any] | None = None
    votes: NDArray[Any] | None = None
    known: NDArray[np.bool_] | None = None
    planes: bool = False

    def counted(self, *maps: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Maps (*shape), or their voxels (V,) that count if these are not all."""
        return maps if self.known is None else tuple(values[self.known] for values in maps)

    @cached_property
    def wrong(self) -> NDArray[np.bool_]:
        """(*shape) where mask and reference differ."""
        return self.mask != self.reference

    @cached_property
    def share(self) -> NDArray[np.float64]:
        """(*shape) share of the raters that mark the voxel, in [0, 1]."""
        return self.raters.mean(axis=0)

    @cached_property
    def overlap(self) -> dict[str, float]:
        """See :func:`medsegdiff.metrics.overlap.overlap`."""
        return overlap.overlap(self.mask, self.reference)

    @cached_property
    def bins(self) -> dict[str, Reliability]:
        """``image`` and ``roi``: the mean over the image and over the region of interest.

        With members, ``members``: their votes over the region. Without a mean there are none.
        """
        if self.mean is None:
            return {}
        region = region_of_interest(np.any(self.raters, axis=0))
        region = region if self.known is None else region & self.known
        bins = {
            "image": reliability(self.mean, self.share, self.known),
            "roi": reliability(self.mean, self.share, region),
        }
        if self.votes is not None:
            bins["members"] = reliability(self.votes, self.share, region)
        return bins
