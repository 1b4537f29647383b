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


def test_bad_arguments_are_told_with_what_came() -> None:
    told = {
        ("cosin", 10, 1.0): "schedule must be one of ['cosine', 'linear', 'sigmoid']. Got 'cosin'.",
        ("cosine", 1, 1.0): "n_timesteps must be at least 2. Got 1.",
        ("cosine", 10, -0.5): "input_scale must be positive. Got -0.5.",
    }
    for (name, n, scale), words in told.items():
        with pytest.raises(ValueError) as error:
            make_schedule(name, n, input_scale=scale)  # type: ignore[arg-type]
        assert str(error.value) == words
    assert make_schedule("cosine", 2).shape == (2,)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_schedule_is_put_together_of_its_parts(name: str) -> None:
    plain = SCHEDULES[name](100)
    assert torch.equal(make_schedule(name, 100, zero_snr=False), plain)  # type: ignore[arg-type]
    ended = make_schedule(name, 100, input_scale=0.5)  # type: ignore[arg-type]
    assert torch.equal(ended, zero_terminal_snr(scale_input(plain, 0.5)))
    assert torch.equal(make_schedule(name, 100), zero_terminal_snr(plain))  # type: ignore[arg-type]


def test_a_shortened_schedule_spans_the_same_noise() -> None:
    """At a tenth of the steps each has ten times the noise, up to the clip."""
    betas = 1.0 - schedule.linear(100) / torch.cat([torch.ones(1), schedule.linear(100)[:-1]])
    torch.testing.assert_close(betas[[0, -1]], torch.tensor([1e-3, 0.2]).double())
    clipped = 1.0 - schedule.linear(10)[1:] / schedule.linear(10)[:-1]
    assert float(clipped[-1]) == pytest.approx(0.999)
    last = schedule.cosine(1000)
    assert float(1.0 - last[-1] / last[-2]) == pytest.approx(0.999)


def test_the_ends_of_the_sigmoid_are_kept_off_zero_and_one() -> None:
    gamma = schedule.sigmoid(10)
    assert float(gamma[-1]) == pytest.approx(1e-9) and gamma[0] < 1
    steep = schedule.sigmoid(10, -30.0, 3.0)
    assert float(steep.max()) == pytest.approx(1 - 1e-9, abs=1e-12)
    shifted = schedule.sigmoid(4, -1.0, 2.0)
    low, high = (1 / (1 + math.exp(-x)) for x in (-1.0, 2.0))
    expected = [(high - 1 / (1 + math.exp(-(-1 + 3 * u / 4)))) / (high - low) for u in (1, 2, 3)]
    assert shifted[:3].tolist() == pytest.approx(expected)


def test_zero_terminal_snr_shifts_and_scales_the_root() -> None:
    """Lin et al. 2024, alg. 1, written out."""
    before = schedule.linear(50)
    first, last = before[0].sqrt(), before[-1].sqrt()
    expected = [float((g.sqrt() - last) * first / (first - last)) ** 2 for g in before]
    assert zero_terminal_snr(before).tolist() == pytest.approx(expected)
