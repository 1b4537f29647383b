"""Cross-attention against torch's own, and its tokens: place, number, members."""

import pytest
import torch
from torch import nn

from medsegdiff.networks.cross_attention import CrossAttention, sine_positions

SIZES = [(4, 6), (3, 4, 5)]


def tokens(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(2).transpose(1, 2)


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_it_is_multi_head_attention_of_each_member_and_its_image(size: tuple[int, ...]) -> None:
    module = CrossAttention(12, heads=2)
    m_x, m_i = torch.randn(6, 12, *size), torch.randn(2, 12, *size)
    reference = nn.MultiheadAttention(12, 2, batch_first=True)
    with torch.no_grad():
        projections = (module.query.weight, module.key.weight, module.value.weight)
        reference.in_proj_weight.copy_(torch.cat(projections))
        reference.in_proj_bias.zero_()
        reference.in_proj_bias[-12:] = module.value.bias
        reference.out_proj.load_state_dict(module.out.state_dict())
    places = tokens(sine_positions(size, 12).unsqueeze(0))
    together = module(m_x, module.keys_and_values(m_i))
    for i in range(6):
        image = tokens(m_i[i // 3 : i // 3 + 1])
        query = module.norm(tokens(m_x[i : i + 1])) + places
        answer, _ = reference(query, image + places, image)
        expected = m_x[i] + answer[0].T.reshape(12, *size)
        torch.testing.assert_close(together[i], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(40, 33), (9, 1, 70), (1, 1)])
def test_an_image_has_a_bounded_number_of_tokens(size: tuple[int, ...]) -> None:
    module = CrossAttention(8, most_tokens=100)
    prepared = module.keys_and_values(torch.randn(2, 8, *size))
    assert prepared.shape[1] <= 100 and prepared.shape[2] == 16
    assert module(torch.randn(4, 8, *size), prepared).shape == (4, 8, *size)


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_tokens_know_their_place(size: tuple[int, ...]) -> None:
    positions = sine_positions(size, 14)
    assert positions.shape == (14, *size)
    flat = positions.flatten(1).T
    apart = torch.cdist(flat, flat) + torch.eye(len(flat))
    assert float(apart.min()) > 0.1
    first_wave = torch.tensor([0.0, 1.0, 0.0, -1.0])  # along the first axis, 4 tokens long
    torch.testing.assert_close(positions[0].flatten(1)[:, 0], first_wave[: size[0]])
