"""Probabilities and their log-odds, in which regressions are linear."""

from __future__ import annotations

import math

LEAST = 1e-3
"""Distance of a probability from 0 and 1 at which its log-odds end."""


def log_odds(probability: float) -> float:
    """Log-odds of a probability, which is kept ``LEAST`` away from 0 and 1.

    >>> log_odds(0.5), round(log_odds(1.0), 3)
    (0.0, 6.907)
    """
    p = min(max(probability, LEAST), 1.0 - LEAST)
    return math.log(p / (1.0 - p))


def probability_of(odds: float) -> float:
    """The probability of log-odds of any size.

    >>> probability_of(0.0), probability_of(-1e9), probability_of(math.inf)
    (0.5, 0.0, 1.0)
    """
    return 1.0 / (1.0 + math.exp(-odds)) if odds > -700.0 else 0.0
