"""How like the cases of the training a case is: its distance from held-out ones, and a p-value.

In each group of features the distance is that of Mahalanobis, with a covariance that is shrunk to
the identity (Ledoit and Wolf 2004), so that there may be more features than cases. The p-value is
conformal (Vovk et al. 2005, sec. 2.2): the rank of the distance among those of cases that were left
out of the fit. It is below p in at most a share p of cases that are drawn as those were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.types import Features

LEAST_PATIENTS = 5
"""Patients below which there is nothing to compare with."""

FOLDS = 5

FLOOR = {"geometry": 0.1, "intensity": 0.05, "ensemble": 0.1}
"""Deviation that is added to that of each feature: a difference below it is none, although all
cases of a data set may agree to the last digit, as their spacing does. Of a logarithm 0.1 is 10 %;
intensities have a deviation of 1."""

LEAST_TYPICAL = 0.5
"""Least distance of the typical case, in deviations: where no case differs, none is far for it."""

ALPHA = 0.05
"""P-value below which a case is said to be unlike the training data."""

MOST_REASONS = 3


@dataclass(frozen=True, eq=False)
class Group:
    """Features of one group in held-out cases.

    Attributes:
        names: Names (d,) of the features.
        mean: Mean (d,) over the cases.
        deviation: Deviation (d,) of each, with ``FLOOR``.
        covariance: Covariance (d, d) of the standardised features, shrunk.
        typical: Median distance of cases that were left out of the fit.
    """

    names: tuple[str, ...]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    covariance: NDArray[np.float64]
    typical: float = 1.0

    def standardised(self, features: Mapping[str, float]) -> NDArray[np.float64]:
        """Deviations (d,) of a case from the mean; NaN for a feature that it does not have."""
        values = np.array([features.get(name, np.nan) for name in self.names])
        return np.asarray((values - self.mean) / self.deviation)

    def distance(self, features: Mapping[str, float]) -> float:
        """Distance of a case relative to the typical one, by the features that it has."""
        z = self.standardised(features)
        known = np.isfinite(z)
        if not known.any():
            return 0.0
        part = self.covariance[np.ix_(known, known)]
        squared = z[known] @ np.linalg.solve(part, z[known]) / known.sum()
        return float(np.sqrt(squared)) / self.typical


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What held-out cases are like.

    Attributes:
        groups: Group of features -> what they are in held-out cases.
        distances: Distances (n,), ascending, of cases that were left out of a fit.
    """

    groups: dict[str, Group]
    distances: tuple[float, ...]

    def distance(self, features: Features) -> float:
        """The greatest distance over the groups."""
        return max(group.distance(features.get(name, {})) for name, group in self.groups.items())

    def p_value(self, features: Features) -> float:
        """Share of held-out cases, with this one, that are as far or farther, in (0, 1]."""
        ordered = np.asarray(self.distances)
        farther = len(ordered) - int(np.searchsorted(ordered, self.distance(features)))
        return (1.0 + farther) / (1.0 + len(ordered))

    def reasons(self, features: Features) -> list[str]:
        """The features that differ most, in words; empty if none differs by 2 deviations."""
        found: list[tuple[float, str]] = []
        for name, group in self.groups.items():
            z = group.standardised(features.get(name, {}))
            found += [(float(value), each) for value, each in zip(z, group.names, strict=True)]
        found = [one for one in found if abs(one[0]) >= 2.0]
        found.sort(key=lambda one: -abs(one[0]))
        return [
            f"{name} is {abs(z):.1f} deviations {'higher' if z > 0 else 'lower'}"
            for z, name in found[:MOST_REASONS]
        ]

    def to_json(self) -> dict[str, Any]:
        """As dictionaries and lists."""
        groups = {
            name: {
                "names": list(group.names),
                "mean": group.mean.tolist(),
                "deviation": group.deviation.tolist(),
                "covariance": group.covariance.tolist(),
                "typical": group.typical,
            }
            for name, group in self.groups.items()
        }
        return {"groups": groups, "distances": list(self.distances)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Familiarity:
        """From dictionaries and lists.

        Raises:
            KeyError, TypeError or ValueError: they are something else.
        """
        groups = {
            name: Group(
                tuple(map(str, group["names"])),
                np.asarray(group["mean"], np.float64),
                np.asarray(group["deviation"], np.float64),
                np.asarray(group["covariance"], np.float64),
                float(group["typical"]),
            )
            for name, group in content["groups"].items()
        }
        return cls(groups, tuple(map(float, content["distances"])))


def fit_familiarity(cases: Sequence[Features], patients: Sequence[str]) -> Familiarity | None:
    """What cases are like; None where their patients are too few, or have no features.

    Args:
        cases: Features of cases that the network was not trained on.
        patients: Patient of each.
    """
    if len(set(patients)) < LEAST_PATIENTS or not all(cases):
        return None
    left_out = {name: np.zeros(len(cases)) for name in cases[0]}
    for others, own in crossed(patients):
        fitted = _groups([cases[i] for i in others])
        for name, group in fitted.items():
            left_out[name][own] = [group.distance(cases[i].get(name, {})) for i in own]
    groups = {
        name: replace(group, typical=max(float(np.median(left_out[name])), LEAST_TYPICAL))
        for name, group in _groups(cases).items()
    }
    greatest = np.max([left_out[name] / group.typical for name, group in groups.items()], axis=0)
    return Familiarity(groups, tuple(sorted(float(d) for d in greatest)))


def crossed(patients: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """Indices of cases to fit to and of those left out, over folds of patients."""
    names = sorted(set(patients))
    order = np.random.default_rng(0).permutation(len(names))
    fold_of = {names[at]: number % FOLDS for number, at in enumerate(order)}
    folds = [fold_of[patient] for patient in patients]
    return [
        ([i for i, f in enumerate(folds) if f != k], [i for i, f in enumerate(folds) if f == k])
        for k in range(min(FOLDS, len(names)))
    ]


def _groups(cases: Sequence[Features]) -> dict[str, Group]:
    from sklearn.covariance import ledoit_wolf

    found: dict[str, Group] = {}
    for name, first in cases[0].items():
        names = tuple(
            key
            for key in first
            if all(np.isfinite(case.get(name, {}).get(key, np.nan)) for case in cases)
        )
        if not names:
            continue
        values = np.array([[case[name][key] for key in names] for case in cases])
        mean = values.mean(axis=0)
        deviation = np.hypot(values.std(axis=0), FLOOR.get(name, 0.1))
        covariance, _ = ledoit_wolf((values - mean) / deviation, assume_centered=True)
        diagonal = np.diag(covariance)
        covariance = covariance + np.diag(np.clip(1.0 - diagonal, 0.0, None))  # the floor is noise
        found[name] = Group(names, mean, deviation, covariance)
    return found
