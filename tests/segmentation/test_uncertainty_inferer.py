"""Mean and variance of dropout against theory, of networks against numpy, of ours as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from torch import nn

from medsegdiff.segmentation import EnsembleInferer, UncertaintyInferer
from tests.tiny import tiny_segmenter


def same(x: torch.Tensor) -> torch.Tensor:
    return x


@pytest.mark.parametrize("shape", [(1, 2, 4, 4), (1, 2, 4, 4, 4)])
def test_dropout_has_the_moments_of_theory(shape: tuple[int, ...]) -> None:
    """Inverted dropout keeps x / (1 - p) with probability 1 - p: variance x^2 p / (1 - p)."""
    x, p = torch.linspace(0.1, 1.0, 2 * 4 ** (len(shape) - 2)).reshape(shape), 0.3
    network = nn.Sequential(nn.Dropout(p)).eval()
    mean, variance = UncertaintyInferer(passes=4000, activation=same)(x, network)
    torch.testing.assert_close(mean, x, atol=0.05, rtol=0.0)
    torch.testing.assert_close(variance, x.square() * p / (1 - p), atol=0.05, rtol=0.0)


def test_only_dropout_is_as_in_training() -> None:
    """Statistics of a batch norm stay, modes and torch's random state come back; seeds decide."""
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout2d(0.5), nn.Conv2d(4, 2, 1)
    )
    network.eval()
    image = torch.randn(2, 1, 8, 8)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    first, again, other = (UncertaintyInferer(passes=4, seed=s)(image, network) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert torch.equal(first.mean, again.mean) and not torch.equal(first.mean, other.mean)
    torch.testing.assert_close(first.mean.sum(dim=1), torch.ones(2, 6, 6))
    assert 0.0 < float(first.variance.max()) <= 0.25


@pytest.mark.parametrize("dims", [2, 3])
def test_several_networks_over_windows(dims: int) -> None:
    torch.manual_seed(0)
    networks = [UNet(dims, 1, 3, channels=(4, 8), strides=(2,)).eval() for _ in range(3)]
    image = torch.randn(1, 1, *[24] * dims)
    windows = SlidingWindowInferer((16,) * dims, overlap=0.25)
    mean, variance = UncertaintyInferer(windows)(image, networks)
    with torch.no_grad():
        each = np.stack([torch.softmax(windows(image, one), 1).numpy() for one in networks])
    np.testing.assert_allclose(mean, each.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(variance, each.var(axis=0), atol=1e-6)
    listed = UncertaintyInferer(windows)(image, nn.ModuleList(networks))
    assert torch.equal(listed.mean, mean)


def test_ours_gives_the_ensembles_own() -> None:
    network, image = tiny_segmenter(2), torch.randn(2, 1, 16, 16)
    inferer = EnsembleInferer((16, 16), members=4, steps=1)
    mean, variance = UncertaintyInferer(inferer)(image, network)
    for i in range(2):
        alone = inferer.ensemble(image[i], network, f"{i}")
        assert torch.equal(mean[i], alone.mean) and torch.equal(variance[i], alone.variance)
    assert float(variance.max()) > 0.0


def test_a_network_without_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match="has no dropout"):
        UncertaintyInferer()(torch.zeros(1, 1, 4, 4), nn.Conv2d(1, 2, 1))
    with pytest.raises(ValueError, match="passes must be 2 or more"):
        UncertaintyInferer(passes=1)
