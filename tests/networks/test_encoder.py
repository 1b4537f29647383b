"""The encoder: sizes, and that it is a U-Net whose every layer learns."""

import pytest
import torch

from medsegdiff.networks.encoder import ImageEncoder


@pytest.mark.parametrize("size", [(16, 16), (13, 21), (8, 9, 7), (16, 8, 8)])
def test_pyramid_and_anchor_of_any_size(size: tuple[int, ...]) -> None:
    encoder = ImageEncoder(len(size), 2, 3, channels=(8, 16, 16))
    condition = encoder(torch.randn(2, 2, *size))
    padded = [-(-s // 4) * 4 for s in size]
    assert condition.anchor.shape == (2, 3, *size)
    for level, feature in enumerate(condition.features):
        assert feature.shape == (2, (8, 16, 16)[level], *(s // 2**level for s in padded))


def test_every_parameter_gets_a_gradient() -> None:
    encoder = ImageEncoder(2, 1, 2, channels=(8, 8, 8))
    encoder(torch.randn(1, 1, 16, 16)).anchor.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
