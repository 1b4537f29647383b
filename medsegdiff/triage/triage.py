"""What is told of a case whose reference nobody knows, as fitted on held-out cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from medsegdiff.core.types import Features
from medsegdiff.triage.expected_dice import LEVEL, ExpectedDice, fit_expected_dice
from medsegdiff.triage.familiarity import ALPHA, Familiarity, crossed, fit_familiarity
from medsegdiff.triage.presence import Presence, fit_presence, members_with

BEYOND = 0.25
"""Log-odds by which the lower end of an expected Dice falls for each typical distance that a case
is farther than 95 % of held-out ones. A choice, not a fit: no held-out case says what happens. The
Dice of eight heads of another site fell by about half as much, as does the expected Dice."""


@dataclass(frozen=True)
class KnownCase:
    """A case that the network was not trained on, and whose reference is known.

    Attributes:
        patient: Patient of the case.
        places: Features of each place that was segmented; one where all of the image was.
        dice: Dice of each class; NaN where the reference does not have it.
        present: Whether the reference has each class.
    """

    patient: str
    places: tuple[Features, ...]
    dice: dict[str, float]
    present: dict[str, bool]


@dataclass(frozen=True, eq=False)
class Triage:
    """What held-out cases are like, and how their Dice followed from it.

    Attributes:
        familiarity: Distances of held-out cases; None: there were too few.
        dice: Regression of the Dice of each class that had enough cases.
        presence: Regression of the presence of each class that some cases had and others not.
        checked: Figures on cases that were left out of a fit.
    """

    familiarity: Familiarity | None
    dice: dict[str, ExpectedDice]
    presence: dict[str, Presence]
    checked: dict[str, Any]

    def beyond(self, places: Sequence[Features]) -> float:
        """How much farther a case is than 95 % of held-out ones, in typical distances."""
        if self.familiarity is None:
            return 0.0
        far = float(np.quantile(self.familiarity.distances, 1.0 - ALPHA))
        return max(0.0, *(self.familiarity.distance(place) - far for place in places))

    def unlike_training(self, places: Sequence[Features]) -> dict[str, Any] | None:
        """The entry ``unlike_training`` of a record: ``p_value`` and ``reasons``, or None.

        Of several places the one that is least like held-out cases counts, and its p-value as many
        times as there are places (Bonferroni).
        """
        if self.familiarity is None:
            return None
        values = [self.familiarity.p_value(place) for place in places]
        p = min(1.0, len(values) * min(values))
        worst = places[int(np.argmin(values))]
        reasons = self.familiarity.reasons(worst) if p < ALPHA else []
        return {"p_value": round(p, 5), "reasons": reasons}

    def review(self, places: Sequence[Features]) -> dict[str, Any] | None:
        """The entry ``review`` of a record: ``expected_dice`` of each class, or None.

        ``score`` is the lowest lower end over the classes: the lower, the sooner to be looked at.
        """
        if not self.dice:
            return None
        whole, beyond = of_whole_case(places), BEYOND * self.beyond(places)
        found = {slug: _rounded(one.of(whole, beyond)) for slug, one in self.dice.items()}
        score = min(one["interval"][0] for one in found.values())
        return {"expected_dice": found, "level": LEVEL, "score": score}

    def present(self, places: Sequence[Features], slugs: Sequence[str]) -> dict[str, float]:
        """The entry ``present`` of a record: the probability of each class; the greatest of places.

        Of a class without a regression it is the share of the members that have it.
        """
        return present(places, slugs, self.presence)

    def to_json(self) -> dict[str, Any]:
        """As dictionaries and lists."""
        return {
            "familiarity": self.familiarity.to_json() if self.familiarity else None,
            "dice": {slug: one.to_json() for slug, one in self.dice.items()},
            "presence": {slug: one.to_json() for slug, one in self.presence.items()},
            "checked": self.checked,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Triage:
        """From dictionaries and lists.

        Raises:
            KeyError, TypeError or ValueError: they are something else.
        """
        known = content["familiarity"]
        return cls(
            Familiarity.from_json(known) if known else None,
            {slug: ExpectedDice.from_json(one) for slug, one in content["dice"].items()},
            {slug: Presence.from_json(one) for slug, one in content["presence"].items()},
            dict(content["checked"]),
        )


def fit_triage(cases: Sequence[KnownCase], slugs: Sequence[str], *, joined: bool = False) -> Triage:
    """Fit to cases that the network was not trained on.

    Args:
        cases: Cases with their references.
        slugs: Names of the foreground classes, in the order of their numbers.
        joined: Whether it will be applied to the ensemble of the networks that made the cases one
            by one. Its members differ more, so what they say is then no sign of another kind of
            case, and familiarity goes without the features ``ensemble``.
    """
    left_out = ("ensemble",) if joined else ()
    patients = [case.patient for case in cases]
    familiarity = _familiarity(cases, left_out)
    wholes = [of_whole_case(case.places) for case in cases]
    dice: dict[str, ExpectedDice] = {}
    checked: dict[str, Any] = {"cases": len(cases)}
    for number, slug in enumerate(slugs, start=1):
        real = [case.dice[slug] for case in cases]
        fitted, expected = fit_expected_dice(number, wholes, real, patients)
        if fitted is not None:
            dice[slug] = fitted
            checked[slug] = _compared(expected, real)
    presence = {
        slug: one
        for number, slug in enumerate(slugs, start=1)
        if (one := fit_presence(number, _surest(number, cases), [c.present[slug] for c in cases]))
    }
    if familiarity:
        checked["flagged"] = _flagged(cases, left_out)
    return Triage(familiarity, dice, presence, checked)


def _surest(number: int, cases: Sequence[KnownCase]) -> list[Features]:
    """Features of the place of each case where a class is most probable."""
    name = f"highest probability of class {number}"
    return [max(case.places, key=lambda place: place["ensemble"][name]) for case in cases]


def present(
    places: Sequence[Features], slugs: Sequence[str], fitted: Mapping[str, Presence] | None = None
) -> dict[str, float]:
    """Probability that each class is in the image, see :meth:`Triage.present`."""
    found: dict[str, float] = {}
    for number, slug in enumerate(slugs, start=1):
        one = (fitted or {}).get(slug)
        each = [one.of(place) if one else members_with(place, number) for place in places]
        found[slug] = round(max(each), 4)
    return found


def of_whole_case(places: Sequence[Features]) -> Features:
    """Means over the places of a case of the features that all of them have."""
    return {
        group: {
            name: float(np.mean([place[group][name] for place in places]))
            for name in features
            if all(name in place.get(group, {}) for place in places)
        }
        for group, features in places[0].items()
    }


def _familiarity(cases: Sequence[KnownCase], left_out: Sequence[str]) -> Familiarity | None:
    """What the places of cases are like, by all groups of features but some."""
    places = [
        {group: of_group for group, of_group in place.items() if group not in left_out}
        for case in cases
        for place in case.places
    ]
    return fit_familiarity(places, [case.patient for case in cases for _ in case.places])


def _flagged(cases: Sequence[KnownCase], left_out: Sequence[str]) -> float | None:
    """Share of cases that are said to be unlike others, by a fit to the others."""
    found: list[bool] = []
    for others, own in crossed([case.patient for case in cases]):
        fitted = _familiarity([cases[i] for i in others], left_out)
        if fitted:
            triage = Triage(fitted, {}, {}, {})
            values = [triage.unlike_training(cases[i].places) or {} for i in own]
            found += [value["p_value"] < ALPHA for value in values]
    return round(float(np.mean(found)), 4) if found else None


def _compared(left_out: NDArray[np.float64], real: Sequence[float]) -> dict[str, float | None]:
    known = np.isfinite(left_out).all(axis=1)
    (expected, above), dice = left_out[known].T, np.asarray(real)[known]
    varies = above.std() > 0.0 and dice.std() > 0.0
    rank = round(float(spearmanr(above, dice).statistic), 4) if varies else None
    return {
        "rank_correlation": rank,
        "mean_error": round(float(np.abs(expected - dice).mean()), 4),
    }


def _rounded(found: Mapping[str, Any]) -> dict[str, Any]:
    low, high = found["interval"]
    return {"dice": round(found["dice"], 4), "interval": [round(low, 4), round(high, 4)]}
