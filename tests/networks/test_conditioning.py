"""MedSegDiff's conditioning modules against their equations, written out for each member."""

import pytest
import torch
import torch.nn.functional as F
from monai.networks.layers import separable_filtering

from medsegdiff.networks.conditioning import (
    ConcatMix,
    DynamicConditionalEncoding,
    SpatialFiLM,
    UncertainSpatialAttention,
    add_over_members,
)
from medsegdiff.networks.layers import conv

SIZES = [(6, 5), (4, 5, 6)]
NO_TIME = torch.zeros(1, 1)  # these modules do not look at it


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_features_meet_the_members_of_their_own_image(size: tuple[int, ...]) -> None:
    x, feature = torch.randn(6, 4, *size), torch.randn(2, 4, *size)
    expected = torch.stack([x[i] + feature[i // 3] for i in range(6)])
    torch.testing.assert_close(add_over_members(x, feature), expected)


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_dynamic_conditional_encoding_is_its_equation(size: tuple[int, ...]) -> None:
    module = DynamicConditionalEncoding(len(size), 8, 4, ff_parser=False)
    m_x, features = torch.randn(6, 4, *size), torch.randn(2, 8, *size)
    m_i = module.project(features)

    def layer_norm(x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, x.shape)

    expected = [
        m_x[i] + layer_norm(m_i[i // 3]) * layer_norm(m_x[i]) * m_i[i // 3] for i in range(6)
    ]
    found = module(m_x, module.prepare(features), NO_TIME)
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_anchor_attention_is_its_equation(size: tuple[int, ...]) -> None:
    module = UncertainSpatialAttention(len(size), 8, 4)
    features, f_d = torch.randn(2, 8, *size), torch.randn(6, 4, *size)
    f_c = module.project(features)
    attention = module.attention(f_c)
    f_anc = torch.maximum(module.blur(f_c), f_c)
    torch.testing.assert_close(attention, torch.sigmoid(module.conv(f_anc)))
    attended = torch.stack([attention[i // 3] * f_d[i] + f_d[i] for i in range(6)])
    found = module(f_d, module.prepare(features), NO_TIME)
    torch.testing.assert_close(found, add_over_members(attended, f_c))


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_two_halves_are_the_convolution_of_the_concatenation(size: tuple[int, ...]) -> None:
    module = ConcatMix(len(size), 4, 4)
    image_half = module.project
    m_x, features = torch.randn(6, 4, *size), torch.randn(2, 4, *size)
    whole = conv(len(size), 8, 4, kernel=1)
    weights = [module.conv.state_dict()["weight"], image_half[1].state_dict()["weight"]]
    bias = image_half[1].state_dict()["bias"]
    whole.load_state_dict({"weight": torch.cat(weights, dim=1), "bias": bias})
    concatenated = torch.cat([m_x, image_half[0](features).repeat_interleave(3, dim=0)], dim=1)
    found = module(m_x, module.prepare(features), NO_TIME)
    torch.testing.assert_close(found, whole(concatenated))


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_spatial_film_is_its_equation(size: tuple[int, ...]) -> None:
    module = SpatialFiLM(len(size), 5, 4)
    m_x, features = torch.randn(6, 4, *size), torch.randn(2, 5, *size)
    maps = module.project(features)
    scale, shift = maps[:, :4], maps[:, 4:]
    expected = [
        F.group_norm(m_x[i : i + 1], 1)[0] * (1 + scale[i // 3]) + shift[i // 3] for i in range(6)
    ]
    found = module(m_x, module.prepare(features), NO_TIME)
    torch.testing.assert_close(found, torch.stack(expected))


def test_the_gaussian_is_normal_keeps_sums_and_learns() -> None:
    module = UncertainSpatialAttention(2, 1, 1, radius=2)
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[..., 4, 4] = 1.0
    blurred = module.blur(impulse)
    assert float(blurred.detach().sum()) == pytest.approx(1.0, abs=1e-5)
    ratio = blurred[0, 0, 4, 4] / blurred[0, 0, 4, 5]
    assert float(ratio.detach()) == pytest.approx(2.718281828**0.5, rel=1e-4)  # sigma is one voxel
    module.attention(impulse).sum().backward()
    assert module.log_sigma.grad is not None and module.log_sigma.grad.abs() > 0


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_the_gaussian_is_a_convolution_along_each_axis(size: tuple[int, ...]) -> None:
    module = UncertainSpatialAttention(len(size), 1, 2, radius=2)
    module.log_sigma.data.fill_(0.3)
    f = torch.randn(3, 2, *size)
    kernel = torch.exp(-0.5 * (torch.arange(-2.0, 3.0) / module.log_sigma.exp()) ** 2)
    expected = separable_filtering(f, [kernel / kernel.sum()] * len(size))  # MONAI's, zero beyond
    torch.testing.assert_close(module.blur(f), expected)
