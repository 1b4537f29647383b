"""Whether a structure is there at all."""

from __future__ import annotations

import numpy as np
import pytest

from medsegdiff.core.types import Features
from medsegdiff.triage.presence import LEAST_CASES, Presence, fit_presence


def seen(highest: float, members: float = 1.0) -> Features:
    named = {"highest probability of class 1": highest, "members with class 1": members}
    return {"ensemble": named}


def test_the_probability_comes_true() -> None:
    rng = np.random.default_rng(0)
    highest = rng.normal(0.0, 3.0, 4000)
    there = rng.random(4000) < 1.0 / (1.0 + np.exp(-(0.8 * highest + 0.5)))
    fitted = fit_presence(1, [seen(h) for h in highest[:2000]], list(there[:2000]))
    assert fitted is not None
    told = np.array([fitted.of(seen(h)) for h in highest[2000:]])
    for low in (0.0, 0.3, 0.7):
        inside = (told >= low) & (told < low + 0.3)
        assert told[inside].mean() == pytest.approx(there[2000:][inside].mean(), abs=0.06)
    assert Presence.from_json(fitted.to_json()) == fitted


def test_nothing_is_fitted_where_all_cases_have_it() -> None:
    there = [True] * 50 + [False] * (LEAST_CASES - 1)
    assert fit_presence(1, [seen(1.0)] * len(there), there) is None
