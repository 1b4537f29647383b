"""Ejection fractions of made-up volumes, and intervals that hold what they promise."""

import math

import numpy as np
import pytest

from medsegdiff.metrics.ejection_fraction import EjectionFraction, ejection_fraction, widening


def test_all_pairs_of_members_are_told() -> None:
    found = ejection_fraction(
        {"ensemble": 100.0, "members": [80.0, 100.0]},
        {"ensemble": 40.0, "members": [40.0, 20.0, 60.0]},
    )
    assert found.value == pytest.approx(60.0)
    assert found.pairs == pytest.approx((50.0, 75.0, 25.0, 60.0, 80.0, 40.0))
    assert found.interval(level=1.0) == pytest.approx((25.0, 80.0))
    assert found.interval(level=1.0, widening=2.0) == pytest.approx((-10.0, 100.0))


def test_an_interval_contains_its_value() -> None:
    beside = EjectionFraction(50.0, (60.0, 62.0, 64.0))
    low, high = beside.interval()
    assert low == 50.0 and 60.0 < high < 64.0


@pytest.mark.parametrize(
    "empty", [{"ensemble": 0.0, "members": [1.0]}, {"ensemble": 1.0, "members": [0.0]}]
)
def test_a_ventricle_that_is_not_there_has_none(empty: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no voxel of the ventricle at end diastole"):
        ejection_fraction(empty, {"ensemble": 1.0, "members": [1.0]})


def test_widened_intervals_hold_the_references_of_new_patients() -> None:
    """Members that agree too well: their own intervals hold few references."""
    draw = np.random.default_rng(0)

    def patients(n: int) -> tuple[list[EjectionFraction], list[float]]:
        truth = draw.uniform(20.0, 70.0, n)
        values = truth + draw.normal(0.0, 4.0, n)
        pairs = values[:, None] + draw.normal(0.0, 1.0, (n, 64))
        return [EjectionFraction(v, tuple(p)) for v, p in zip(values, pairs, strict=True)], [*truth]

    factor = widening(*patients(199))

    def held(found: list[EjectionFraction], references: list[float], by: float) -> float:
        ends = [one.interval(widening=by) for one in found]
        return float(np.mean([a <= r <= b for (a, b), r in zip(ends, references, strict=True)]))

    new = patients(2000)
    assert held(*new, 1.0) < 0.5
    assert held(*new, factor) == pytest.approx(0.9, abs=0.05)


def test_too_few_patients_say_nothing() -> None:
    one = EjectionFraction(50.0, (45.0, 55.0))
    assert widening([one] * 8, [50.0] * 8) == math.inf
    assert widening([one] * 9, [50.0] * 9) == 0.0
    narrow = EjectionFraction(50.0, (50.0, 50.0))
    assert widening([narrow] * 9, [51.0] * 9) == math.inf
