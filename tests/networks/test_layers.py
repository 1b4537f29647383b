"""Tests of the building blocks of networks."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from medsegdiff.networks.layers import InstanceNorm, PerAxis, conv


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), ((1, 3, 3), (1, 2, 2)), (3, 2)])
def test_a_single_image_is_convolved_as_one_of_a_batch(kernel: PerAxis, stride: PerAxis) -> None:
    torch.manual_seed(0)
    layer, images = conv(3, 4, 8, kernel, stride), torch.randn(2, 4, 6, 10, 8)
    with (
        torch.no_grad(),
        mock.patch("torch.mkldnn_convolution", wraps=torch.mkldnn_convolution) as way,
    ):
        batch = layer(images)
        assert not way.called
        torch.testing.assert_close(layer(images[:1]), batch[:1])
    assert way.called == torch.backends.mkldnn.is_available()


def test_a_convolution_has_the_weights_and_gradients_of_one_of_pytorch() -> None:
    torch.manual_seed(0)
    layer, other = conv(3, 2, 3), nn.Conv3d(2, 3, 3, padding=1)
    other.load_state_dict(layer.state_dict())
    image = torch.randn(1, 2, 5, 6, 7)
    for one in (layer, other):
        one(image).square().sum().backward()
    for ours, theirs in zip(layer.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_network_is_exported_by_the_operations_of_pytorch() -> None:
    layer, image = conv(3, 2, 3).eval(), torch.randn(1, 2, 5, 6, 7)
    with torch.no_grad():
        program = torch.export.export(layer, (image,))
    assert "mkldnn" not in str(program.graph)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_instance_norm_is_that_of_pytorch(memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    maps = (100.0 + torch.randn(2, 4, 5, 6, 7)).to(memory_format=memory_format)
    norm = InstanceNorm(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    wanted = F.instance_norm(maps, weight=norm.weight, bias=norm.bias, eps=norm.eps)
    torch.testing.assert_close(norm(maps), wanted, atol=1e-4, rtol=1e-4)
    rounded = (maps - 100.0).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(rounded).dtype == torch.bfloat16
        torch.testing.assert_close(norm(rounded).float(), wanted, atol=0.1, rtol=0.1)


def test_instance_norm_of_one_voxel_is_its_bias() -> None:
    norm = InstanceNorm(3)
    nn.init.normal_(norm.bias)
    torch.testing.assert_close(norm(torch.randn(1, 3, 1, 1)).flatten(), norm.bias)
