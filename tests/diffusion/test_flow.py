"""The rectified flow: straight lines, their velocity, and the base distribution."""

import pytest
import torch

from medsegdiff.core.types import Target
from medsegdiff.diffusion.flow import RectifiedFlow
from medsegdiff.diffusion.prediction import anchor_mask

SHAPES = [(4, 3, 6, 5), (4, 3, 4, 5, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_states_lie_on_a_line_whose_slope_is_the_velocity(
    shape: tuple[int, ...], scale: float
) -> None:
    flow, (x_0, eps) = RectifiedFlow(100, base_scale=scale), torch.randn(2, *shape).double()
    x = [flow.add_noise(x_0, eps, torch.tensor([t])) for t in (0, 39, 99)]
    v = flow.target(x_0, eps, torch.tensor([39]), "v")
    torch.testing.assert_close((x[1] - x[0]) / 0.39, v)
    torch.testing.assert_close((x[2] - x[1]) / 0.60, v)
    torch.testing.assert_close(x[1] - 0.4 * v, x_0)
    torch.testing.assert_close(x[2], flow.start(eps))


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("step", [0, 40, 99])
def test_the_network_sees_lines_from_a_base_around_the_anchor(
    shape: tuple[int, ...], step: int
) -> None:
    flow, t = RectifiedFlow(100, base="anchor", base_scale=0.5), torch.tensor([step])
    (x_0, eps), anchor = torch.randn(2, *shape).double(), torch.randn(2, *shape[1:])
    mu, tau = anchor_mask(anchor, x_0), (step + 1) / 100
    seen = flow.network_input(flow.add_noise(x_0, eps, t), t, anchor)
    torch.testing.assert_close(seen, (1 - tau) * x_0 + tau * (mu + 0.5 * eps))
    plain = RectifiedFlow(100)
    assert plain.network_input(x_0, t, anchor) is x_0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"base": "image"}, "anchor"),
        ({"n_timesteps": 1}, "at least 2"),
        ({"base_scale": 0.0}, "positive"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        RectifiedFlow(**arguments)


def test_bad_arguments_are_told_with_what_came() -> None:
    told = {
        "base must be 'standard' or 'anchor'. Got 'image'.": {"base": "image"},
        "n_timesteps must be at least 2. Got 1.": {"n_timesteps": 1},
        "base_scale must be positive. Got -1.0.": {"base_scale": -1.0},
    }
    for words, arguments in told.items():
        with pytest.raises(ValueError) as error:
            RectifiedFlow(**arguments)  # type: ignore[arg-type]
        assert str(error.value) == words
    assert RectifiedFlow(2).n_timesteps == 2 and RectifiedFlow().n_timesteps == 1000


@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_the_gain_is_how_an_error_of_the_mask_moves_the_target(
    target: Target, scale: float
) -> None:
    """At a fixed x_t, of which the noise follows: a finite difference."""
    flow, t = RectifiedFlow(10, base_scale=scale), torch.tensor([2, 6])
    a, s = flow.coefficients(t, torch.ones(2).double())
    x_t, moved = torch.tensor([0.2, -0.4]).double(), []
    for x_0 in (torch.full((2,), 0.1).double(), torch.full((2,), 1.1).double()):
        moved.append(flow.target(x_0, (x_t - a * x_0) / s, t, target))
    torch.testing.assert_close(flow.gain(t, target), (moved[1] - moved[0]).square().float())
