"""The encoder: sizes, and that it is a U-Net whose every layer learns."""

import pytest
import torch

from medsegdiff.networks.encoder import ImageEncoder
from medsegdiff.networks.layers import ConvBlock, InstanceNorm


@pytest.mark.parametrize("size", [(16, 16), (13, 21), (8, 9, 7), (16, 8, 8)])
def test_pyramid_and_anchor_of_any_size(size: tuple[int, ...]) -> None:
    encoder = ImageEncoder(len(size), 2, 3, channels=(8, 16, 16))
    condition = encoder(torch.randn(2, 2, *size))
    padded = [-(-s // 4) * 4 for s in size]
    assert condition.anchor.shape == (2, 3, *size)
    for level, feature in enumerate(condition.features):
        assert feature.shape == (2, (8, 16, 16)[level], *(s // 2**level for s in padded))


@pytest.mark.parametrize(("size", "stem"), [((13, 21), (2, 2)), ((8, 9, 7), (2, 2, 1))])
def test_a_stride_into_the_finest_level_is_undone_by_the_head(
    size: tuple[int, ...], stem: tuple[int, ...]
) -> None:
    encoder = ImageEncoder(len(size), 1, 3, channels=(8, 16), strides=[stem, (2,) * len(size)])
    condition = encoder(torch.randn(2, 1, *size))
    assert condition.anchor.shape == (2, 3, *size)
    finest = condition.features[0].shape[2:]
    multiples = [2 * s for s in stem]
    padded = [-(-n // m) * m for n, m in zip(size, multiples, strict=True)]
    assert list(finest) == [n // s for n, s in zip(padded, stem, strict=True)]
    condition.anchor.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_depth_says_how_many_convolutions_and_whether_a_block_is_residual() -> None:
    encoder = ImageEncoder(3, 1, 2, channels=(8, 16, 16), depths=(1, 2, 3))
    found = [[len(block.layers) // 3, block.residual] for block in (*encoder.down, *encoder.up)]
    assert found == [[1, False], [2, True], [3, True], [1, False], [2, True]]


def test_a_residual_block_without_its_convolutions_is_its_short_cut() -> None:
    block = ConvBlock(2, 4, 8, stride=2)
    torch.nn.init.zeros_(block.layers[-2].weight)  # type: ignore[arg-type]
    x = torch.randn(1, 4, 6, 6)
    assert torch.equal(block(x), block.short_cut(x))
    same = ConvBlock(2, 8, 8)
    torch.nn.init.zeros_(same.layers[-2].weight)  # type: ignore[arg-type]
    y = torch.randn(1, 8, 3, 3)
    assert torch.equal(same(y), y)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2, 3, 4)])
def test_instances_are_normalised_each_by_itself(size: tuple[int, ...]) -> None:
    norm, x = InstanceNorm(3), 5.0 + 2.0 * torch.randn(2, 3, *size)
    torch.nn.init.normal_(norm.weight)
    flat = x.flatten(2)
    apart = flat - flat.mean(-1, keepdim=True)
    expected = apart / (apart.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    found = norm(x).flatten(2)
    torch.testing.assert_close(found, norm.weight[:, None] * expected, atol=1e-4, rtol=1e-4)


def test_a_depth_is_missing() -> None:
    with pytest.raises(ValueError, match="depths must have 3 values"):
        ImageEncoder(2, 1, 2, channels=(8, 8, 8), depths=(1, 2))


def test_every_parameter_gets_a_gradient() -> None:
    encoder = ImageEncoder(2, 1, 2, channels=(8, 8, 8))
    encoder(torch.randn(1, 1, 16, 16)).anchor.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
