"""Ejection fraction of a ventricle, with an interval from the sets of its two phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np


class EjectionFraction(NamedTuple):
    """Share of its end-diastolic volume that a ventricle ejects, in percent.

    Attributes:
        value: Fraction of the two ensemble masks.
        pairs: Fraction (N * M,) of each pair of a member of one phase and one of the other. Two
            phases are two images, whose members are drawn apart, so that all pairs are equally
            plausible.
    """

    value: float
    pairs: tuple[float, ...]

    def interval(self, level: float = 0.9, widening: float = 1.0) -> tuple[float, float]:
        """Interval of the pairs, in percent.

        Args:
            level: Share of the pairs within it, before it is widened.
            widening: Factor on the distance of each end from ``value`` (:func:`widening`).
        """
        tail = (1.0 - level) / 2.0
        low, high = np.quantile(self.pairs, [tail, 1.0 - tail])
        return (
            float(self.value - widening * max(self.value - low, 0.0)),
            float(self.value + widening * max(high - self.value, 0.0)),
        )


def ejection_fraction(diastole: Mapping[str, Any], systole: Mapping[str, Any]) -> EjectionFraction:
    """(EDV - ESV) / EDV of one ventricle.

    Args:
        diastole: Entry of its class in ``volume_ml`` of ``<case>_run.json`` of the image at end
            diastole.
        systole: The same of the image at end systole.

    Raises:
        ValueError: the ensemble mask or a member has no such ventricle at end diastole.

    Example:
        >>> found = ejection_fraction(
        ...     {"ensemble": 120.0, "members": [110.0, 130.0]},
        ...     {"ensemble": 60.0, "members": [55.0, 65.0]},
        ... )
        >>> found.value, [round(one, 1) for one in found.interval()]
        (50.0, [42.3, 56.5])
    """
    volumes = [np.asarray([one["ensemble"], *one["members"]]) for one in (diastole, systole)]
    if volumes[0].min() <= 0.0:
        raise ValueError("a mask has no voxel of the ventricle at end diastole.")
    fraction = 100.0 * (1.0 - volumes[1][None, :] / volumes[0][:, None])
    return EjectionFraction(float(fraction[0, 0]), tuple(fraction[1:, 1:].ravel().tolist()))


def widening(
    found: Sequence[EjectionFraction], references: Sequence[float], level: float = 0.9
) -> float:
    """Factor by which intervals hold the reference of a share ``level`` of new patients.

    Split conformal prediction (Lei et al. 2018): each patient's score is the distance of the
    reference from the value, relative to that of the interval's end on its side; the factor is the
    ceil((n + 1) level)-th smallest score.

    Args:
        found: Fractions of n patients whom the network did not learn from.
        references: Their reference fractions (n,), in percent.
        level: Share of patients whose interval shall hold the reference.

    Returns:
        The factor, or infinity where n is too small for the level.
    """
    scores = []
    for one, reference in zip(found, references, strict=True):
        low, high = one.interval(level)
        end = high - one.value if reference > one.value else one.value - low
        distance = abs(reference - one.value)
        scores.append(distance / end if end > 0.0 else float("inf") if distance else 0.0)
    rank = ceil((len(scores) + 1) * level)
    return float(sorted(scores)[rank - 1]) if rank <= len(scores) else float("inf")
