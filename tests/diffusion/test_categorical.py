"""The categorical process against its transition matrices."""

import pytest
import torch
from torch import Tensor

from medsegdiff.diffusion.categorical import (
    CategoricalProcess,
    jump,
    posterior_probability,
    sample_one_hot,
)
from medsegdiff.diffusion.grid import Level
from medsegdiff.diffusion.prediction import mask_to_probability
from medsegdiff.diffusion.schedule import make_schedule

SIDES = [(300, 300), (45, 45, 45)]


def one_hot_states(k: int) -> Tensor:
    """(K, K, 1, 1): each class once, in [-1, 1]."""
    return (2 * torch.eye(k, dtype=torch.float64) - 1)[..., None, None]


def matrix(alpha: float, k: int) -> Tensor:
    """Rows: q(next | class) of a uniform kernel, written out."""
    return alpha * torch.eye(k).double() + (1 - alpha) * torch.full((k, k), 1 / k).double()


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("side", SIDES, ids=["2d", "3d"])
@pytest.mark.parametrize("t", [0, 400, 999])
def test_states_are_one_hot_with_the_frequencies_of_the_kernel(
    k: int, side: tuple[int, ...], t: int
) -> None:
    process = CategoricalProcess("cosine", 1000)
    x_0 = torch.full((1, k, *side), -1.0)
    x_0[:, 1] = 1.0
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(t))
    x_t = process.add_noise(x_0, eps, torch.tensor([t]))
    assert set(x_t.unique().tolist()) == {-1.0, 1.0} and (x_t.sum(1) == 2 - k).all()
    gamma = float(process.alphas_cumprod[t])
    frequencies = (x_t == 1).double().flatten(2).mean((0, 2))
    torch.testing.assert_close(frequencies, matrix(gamma, k)[1], rtol=0, atol=0.01)


def test_two_classes_are_berdiffs_bernoulli() -> None:
    """Chen et al. 2023, eq. 3: y_t ~ B(alphas_cumprod y_0 + (1 - alphas_cumprod) / 2)."""
    y_0, gamma = torch.tensor([0.0, 1.0]), 0.3
    probability = jump(torch.stack([1 - y_0, y_0], dim=1), gamma)[:, 1]
    torch.testing.assert_close(probability, gamma * y_0 + (1 - gamma) / 2)


def test_extreme_normal_noise_still_chooses() -> None:
    eps = torch.tensor([[[9.0], [5.0], [-30.0]]])
    for weight in (torch.ones_like(eps), torch.tensor([[[0.0], [1.0], [0.0]]])):
        drawn = sample_one_hot(weight, eps)
        assert drawn.isfinite().all() and drawn.sum() == -1
    assert drawn[0, 1] == 1  # the only class with weight


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize(("a_t", "a_s"), [(0.0, 0.4), (0.2, 0.7), (0.9, 0.95), (0.3, 1.0)])
def test_posterior_is_bayes_rule_and_keeps_the_marginal(k: int, a_t: float, a_s: float) -> None:
    now, after = Level(a_t, 1 - a_t), Level(a_s, 1 - a_s)
    to_s, s_to_t, to_t = matrix(a_s, k), matrix(a_t / a_s, k), matrix(a_t, k)
    torch.testing.assert_close(to_s @ s_to_t, to_t)  # one jump equals two
    states = one_hot_states(k)
    for c in range(k):
        x_0 = states[c : c + 1].expand(k, -1, -1, -1)
        found = posterior_probability(states, x_0, now, after)[..., 0, 0]  # a row an x_t
        bayes = (to_s[c] * s_to_t.T) / to_t[c][:, None]
        torch.testing.assert_close(found, bayes, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.sum(1), torch.ones(k).double())
        torch.testing.assert_close(to_t[c] @ found, to_s[c], rtol=0, atol=1e-6)


def test_the_posterior_of_a_soft_mask_is_the_mean_over_its_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    x_0 = 2 * torch.randn(3, 3, 4, 4, generator=generator, dtype=torch.float64).softmax(1) - 1
    x_t = one_hot_states(3).expand(-1, -1, 4, 4)
    now, after = Level(0.2, 0.8), Level(0.6, 0.4)
    hard = [posterior_probability(x_t, s.expand(3, 3, 4, 4), now, after) for s in one_hot_states(3)]
    weights = mask_to_probability(x_0)
    expected = sum(weights[:, c : c + 1] * hard[c] for c in range(3))
    found = posterior_probability(x_t, x_0, now, after)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.sum(1), torch.ones(3, 4, 4).double())


def test_the_categorical_process_has_the_schedule_that_was_asked_for() -> None:
    process = CategoricalProcess("linear", 50, input_scale=0.5, zero_snr=False)
    expected = make_schedule("linear", 50, input_scale=0.5, zero_snr=False)
    assert torch.equal(process.alphas_cumprod, expected) and process.n_timesteps == 50
    plain = CategoricalProcess()
    assert torch.equal(plain.alphas_cumprod, make_schedule("cosine", 1000))
    assert plain.grid(2).states == "discrete" and plain.targets == ("x_0",)
