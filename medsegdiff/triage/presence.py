"""The probability that a structure is in the image at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medsegdiff.core.types import Features
from medsegdiff.triage.log_odds import probability_of

LEAST_CASES = 5
"""Cases with the structure, and without, below which nothing is fitted."""


@dataclass(frozen=True)
class Presence:
    """Logistic regression of presence on the highest probability anywhere in the image.

    Attributes:
        number: Number of the class.
        slope: Change of the log-odds of presence by those of the highest probability.
        offset: Log-odds of presence where they are 0.
    """

    number: int
    slope: float
    offset: float

    def of(self, features: Features) -> float:
        """Probability in [0, 1] that the class is in the image."""
        highest = features["ensemble"][f"highest probability of class {self.number}"]
        return probability_of(self.slope * highest + self.offset)

    def to_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return {"number": self.number, "slope": self.slope, "offset": self.offset}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Presence:
        """From a dictionary.

        Raises:
            KeyError, TypeError or ValueError: it is something else.
        """
        return cls(int(content["number"]), float(content["slope"]), float(content["offset"]))


def members_with(features: Features, number: int) -> float:
    """Share of the members that have the class anywhere."""
    return features["ensemble"][f"members with class {number}"]


def fit_presence(
    number: int, cases: Sequence[Features], present: Sequence[bool]
) -> Presence | None:
    """The regression of one class; None where nearly all cases have it, or nearly none.

    Args:
        number: Number of the class.
        cases: Features of cases that the network was not trained on.
        present: Whether the class is in each.
    """
    with_it = sum(present)
    if min(with_it, len(present) - with_it) < LEAST_CASES:
        return None
    from sklearn.linear_model import LogisticRegression

    name = f"highest probability of class {number}"
    highest = np.array([[case["ensemble"][name]] for case in cases])
    fitted = LogisticRegression().fit(highest, np.asarray(present))
    return Presence(number, max(float(fitted.coef_[0, 0]), 0.0), float(fitted.intercept_[0]))
