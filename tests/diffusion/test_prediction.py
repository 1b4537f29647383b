"""Conversions are inverse to each other, in float64, at every noise level."""

import pytest
import torch

from medsegdiff.diffusion import prediction as p
from medsegdiff.diffusion.schedule import make_schedule

SHAPES = [(2, 3, 5, 4), (2, 3, 5, 4, 3)]
GAMMAS = [float(make_schedule("cosine", 1000, zero_snr=False)[t]) for t in (0, 500, 990)]


@pytest.fixture(params=SHAPES, ids=["2d", "3d"])
def state(request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = request.param
    x_0 = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x_0, torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_round_trips(state: tuple[torch.Tensor, torch.Tensor], gamma: float) -> None:
    x_0, eps = state
    a, s = gamma**0.5, (1 - gamma) ** 0.5
    x_t = a * x_0 + s * eps
    v = p.v_from_x_0_and_eps(x_0, eps, a, s)
    torch.testing.assert_close(p.x_0_from_eps(x_t, eps, a, s), x_0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.eps_from_x_0(x_t, x_0, a, s), eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.x_0_from_v(x_t, v, a, s), x_0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.eps_from_v(x_t, v, a, s), eps, rtol=1e-9, atol=1e-9)


def test_velocity_is_defined_at_zero_snr(state: tuple[torch.Tensor, torch.Tensor]) -> None:
    x_0, eps = state
    torch.testing.assert_close(
        p.x_0_from_v(eps, p.v_from_x_0_and_eps(x_0, eps, 0.0, 1.0), 0.0, 1.0), x_0
    )


def test_a_mask_of_logits_has_their_probabilities(
    state: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, _ = state
    mask = p.mask_from_logits(logits)
    assert mask.min() >= -1 and mask.max() <= 1
    torch.testing.assert_close(p.mask_to_probability(mask), logits.softmax(1))


def test_each_member_gets_its_own_images_anchor() -> None:
    anchor = torch.randn(2, 3, 4, 4, requires_grad=True)
    masks = p.anchor_mask(anchor, torch.empty(6, 3, 4, 4, dtype=torch.float64))
    assert masks.dtype == torch.float64 and not masks.requires_grad
    for i, mask in enumerate(masks):
        torch.testing.assert_close(mask.float(), p.mask_from_logits(anchor.detach())[i // 3])


def test_probabilities_sum_to_one_even_of_masks_that_do_not() -> None:
    probability = p.mask_to_probability(torch.full((1, 3, 4, 4), -1.0))
    torch.testing.assert_close(probability.sum(1), torch.ones(1, 4, 4))


def test_division_by_zero_is_kept_finite() -> None:
    one = torch.ones(1, 1, 1, 1)
    for zero in (0.0, torch.zeros(1, 1, 1, 1)):
        assert float(p.x_0_from_eps(one, one, zero, 0.5 * one)) == pytest.approx(0.5e8)  # type: ignore[type-var]
        assert float(p.eps_from_x_0(one, one, 0.5 * one, zero)) == pytest.approx(0.5e8)  # type: ignore[type-var]
