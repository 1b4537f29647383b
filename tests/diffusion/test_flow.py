"""The rectified flow: straight lines, their velocity, and the base distribution."""

import pytest
import torch

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
