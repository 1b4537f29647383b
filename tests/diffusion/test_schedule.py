"""Schedules against their formulas, and the two ways to make them harder."""

import math

import pytest
import torch

from medsegdiff.diffusion import schedule
from medsegdiff.diffusion.schedule import SCHEDULES, make_schedule, scale_input, zero_terminal_snr


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("n_timesteps", [10, 1000])
def test_falls_within_zero_and_one(name: str, n_timesteps: int) -> None:
    gamma = SCHEDULES[name](n_timesteps)
    assert gamma.dtype == torch.float64 and gamma.shape == (n_timesteps,)
    assert (gamma.diff() < 0).all() and gamma[-1] >= 0 and gamma[0] < 1


def test_linear_is_the_product_of_its_alphas() -> None:
    product, expected = 1.0, []
    for t in range(1000):
        product *= 1.0 - (1e-4 + (0.02 - 1e-4) * t / 999)
        expected.append(product)
    torch.testing.assert_close(schedule.linear(1000), torch.tensor(expected, dtype=torch.float64))


def test_cosine_follows_equation_17_where_no_beta_is_clipped() -> None:
    def f(t: float) -> float:
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    gamma = schedule.cosine(1000)
    for t in (0, 100, 500, 900):
        assert float(gamma[t]) == pytest.approx(f(t + 1) / f(0), rel=1e-9)


def test_sigmoid_goes_from_one_to_zero_as_in_algorithm_1() -> None:
    def falling(u: float) -> float:
        return 1.0 / (1.0 + math.exp(-(-3.0 + 6.0 * u)))

    gamma = schedule.sigmoid(1000)
    for t in (0, 250, 500, 900):
        expected = (falling(1.0) - falling((t + 1) / 1000)) / (falling(1.0) - falling(0.0))
        assert float(gamma[t]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_zero_terminal_snr_keeps_the_first_step(name: str) -> None:
    before = SCHEDULES[name](1000)
    after = zero_terminal_snr(before)
    assert float(after[-1]) == 0.0
    assert float(after[0]) == pytest.approx(float(before[0]), rel=1e-12)


@pytest.mark.parametrize("b", [0.1, 0.5, 1.0])
def test_input_scale_equals_shrinking_the_mask_and_restoring_unit_variance(b: float) -> None:
    gamma = schedule.cosine(1000)[:-1]
    shrunk_signal, noise = b * gamma.sqrt(), (1 - gamma).sqrt()
    norm = (b**2 * gamma + 1 - gamma).sqrt()
    scaled = scale_input(gamma, b)
    torch.testing.assert_close(scaled.sqrt(), shrunk_signal / norm)
    torch.testing.assert_close((1 - scaled).sqrt(), noise / norm)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"name": "cosin", "n_timesteps": 10}, "cosine"),
        ({"name": "cosine", "n_timesteps": 1}, "at least 2"),
        ({"name": "cosine", "n_timesteps": 10, "input_scale": 0.0}, "positive"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make_schedule(**arguments)
