"""The Dice to expect of a mask whose reference nobody knows, with an interval.

The ensemble's own expectation of the Dice (its mean probability taken at its word) and the volume
are brought to the Dice that held-out cases reached, by a linear regression of log-odds. Few cases
only shift the ensemble's expectation; many change how strongly it counts. The interval is
conformal: it reaches as far as the errors of cases that were left out of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.types import Features
from medsegdiff.triage.familiarity import crossed
from medsegdiff.triage.log_odds import log_odds, probability_of

LEVEL = 0.9
"""Level of the interval."""

LEAST_CASES = 10
"""Cases with the structure below which nothing is fitted."""

OWN_SLOPES = np.array([1.0, 0.0])
"""Slopes that take the ensemble at its word: of the Dice that it expects, and of the volume."""

SHRINKAGE = 30.0
"""Penalty of slopes that differ from ``OWN_SLOPES``, in cases. With 40 cases of ``hippocampus_mr``
the error on patients left out falls the more, the larger it is; of hundreds of cases it is a small
part."""


@dataclass(frozen=True, eq=False)
class ExpectedDice:
    """Regression of the Dice of one class.

    Attributes:
        number: Number of the class.
        mean: Mean (d,) of each feature over the cases.
        deviation: Deviation (d,) of each.
        slopes: Change (d,) of the log-odds of the Dice for a deviation of each.
        level: Mean log-odds of the Dice.
        errors: Errors (n,) in log-odds, without sign and ascending, of cases left out of a fit.
    """

    number: int
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    slopes: NDArray[np.float64]
    level: float
    errors: tuple[float, ...] = ()

    def log_odds(self, features: Features) -> float:
        """Expected log-odds of the Dice of a case, whose features count as far as cases went."""
        z = (_values(features, self.number) - self.mean) / self.deviation
        return float(self.level + np.clip(z, -3.0, 3.0) @ self.slopes)

    def of(self, features: Features, beyond: float = 0.0) -> dict[str, Any]:
        """The expected Dice ``dice`` and its ``interval`` [low, high], in [0, 1].

        Args:
            features: Features of a case.
            beyond: Log-odds by which the lower end is lowered, for a case that is farther from
                the middle than held-out cases are: nobody knows what to expect there. The expected
                Dice stays in the middle of the interval, so it is lowered by half.
        """
        expected = self.log_odds(features)
        n = len(self.errors)
        rank = int(np.ceil((n + 1) * LEVEL)) - 1
        error = self.errors[rank] if rank < n else np.inf
        low, high = probability_of(expected - error - beyond), probability_of(expected + error)
        return {"dice": probability_of(expected - beyond / 2.0), "interval": [low, high]}

    def to_json(self) -> dict[str, Any]:
        """As dictionaries and lists."""
        return {
            "number": self.number,
            **{key: getattr(self, key).tolist() for key in ("mean", "deviation", "slopes")},
            "level": self.level,
            "errors": list(self.errors),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ExpectedDice:
        """From dictionaries and lists.

        Raises:
            KeyError, TypeError or ValueError: they are something else.
        """
        mean, deviation, slopes = (
            np.asarray(content[key], np.float64) for key in ("mean", "deviation", "slopes")
        )
        errors, level = tuple(map(float, content["errors"])), float(content["level"])
        return cls(int(content["number"]), mean, deviation, slopes, level, errors)


def fit_expected_dice(
    number: int, cases: Sequence[Features], dice: Sequence[float], patients: Sequence[str]
) -> tuple[ExpectedDice | None, NDArray[np.float64]]:
    """The regression of one class, and what was expected of each case that was left out of it.

    Args:
        number: Number of the class.
        cases: Features of cases that the network was not trained on.
        dice: Dice of each; NaN where it is not defined.
        patients: Patient of each.

    Returns:
        The regression, None of too few cases; and (n, 2) the Dice that was expected of each case,
        and how much above the mean of the others that was, in log-odds. The means of the others
        alone would rank the cases in reverse.
    """
    told = np.full((len(cases), 2), np.nan)
    known = [i for i, value in enumerate(dice) if np.isfinite(value)]
    of_patients = [patients[i] for i in known]
    if len(known) < LEAST_CASES or len(set(of_patients)) < LEAST_CASES // 2:
        return None, told
    features = np.array([_values(cases[i], number) for i in known])
    target = np.array([log_odds(dice[i]) for i in known])
    expected, above = np.zeros(len(known)), np.zeros(len(known))
    for others, own in crossed(of_patients):
        fitted = _fitted(number, features[others], target[others])
        expected[own] = [fitted.log_odds(cases[known[i]]) for i in own]
        above[own] = expected[own] - fitted.level
    whole = _fitted(number, features, target)
    errors = tuple(sorted(np.abs(target - expected).tolist()))
    found = ExpectedDice(number, whole.mean, whole.deviation, whole.slopes, whole.level, errors)
    told[known] = [[probability_of(one), far] for one, far in zip(expected, above, strict=True)]
    return found, told


def _fitted(
    number: int, features: NDArray[np.float64], target: NDArray[np.float64]
) -> ExpectedDice:
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    z, level = (features - mean) / deviation, float(target.mean())
    own = OWN_SLOPES * deviation
    gram = z.T @ z + SHRINKAGE * np.eye(z.shape[1])
    slopes = own + np.linalg.solve(gram, z.T @ (target - level - z @ own))
    return ExpectedDice(number, mean, deviation, slopes, level)


def _values(features: Features, number: int) -> NDArray[np.float64]:
    of_ensemble = features["ensemble"]
    names = ("expected Dice of class", "volume of class")
    return np.array([of_ensemble[f"{name} {number}"] for name in names])
