"""The U-Net of noisy images, and what it hands on to an encoder."""

import pytest
import torch
from torch import nn

from medsegdiff.networks.image_denoiser import ImageDenoiser
from medsegdiff.networks.layers import from_patches, to_patches

SIZES = [(13, 10), (8, 9, 7)]
CHANNELS = (8, 16, 16)


def trained(dims: int, num_labels: int = 0) -> ImageDenoiser:
    """A denoiser whose weights, zero at first, are not."""
    torch.manual_seed(0)
    network = ImageDenoiser(dims, 1, 1, CHANNELS, num_labels=num_labels)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_output_is_like_the_image_and_features_like_its_padded_pyramid(
    size: tuple[int, ...],
) -> None:
    found = trained(len(size))(torch.randn(2, 1, *size), torch.tensor([0.1, 0.9]))
    padded = [n + -n % 4 for n in size]
    assert found.output.shape == (2, 1, *size)
    for level, features in enumerate(found.features):
        assert features.shape == (2, CHANNELS[level], *[n // 2**level for n in padded])


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_time_and_label_change_the_answer_of_each_image_alone(size: tuple[int, ...]) -> None:
    network = trained(len(size), num_labels=2)
    x = torch.randn(2, 1, *size)
    t, label = torch.tensor([0.2, 0.7]), torch.tensor([0, 1])
    both = network(x, t, label).output
    for k in range(2):
        alone = network(x[k : k + 1], t[k : k + 1], label[k : k + 1]).output
        torch.testing.assert_close(both[k : k + 1], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(both, network(x, t.flip(0), label).output, atol=1e-3)
    assert not torch.allclose(both, network(x, t, label.flip(0)).output, atol=1e-3)
    none = network(x, t, torch.tensor([2])).output
    torch.testing.assert_close(network(x, t).output, none)


@pytest.mark.parametrize("size", [(4, 6), (4, 6, 2)], ids=["2d", "3d"])
def test_patches_come_and_go(size: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *size)
    patches = to_patches(x, 2)
    assert patches.shape == (2, 3 * 2 ** len(size), *[n // 2 for n in size])
    assert torch.equal(from_patches(patches, 2), x)
    corner = x[:, :, :2, :2, :2] if len(size) == 3 else x[:, :, :2, :2]
    assert torch.equal(patches.flatten(2)[..., 0], corner.flatten(1))
    if len(size) == 2:
        assert torch.equal(patches, torch.nn.functional.pixel_unshuffle(x, 2))


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_a_coarse_denoiser_answers_at_the_images_size(size: tuple[int, ...]) -> None:
    network = ImageDenoiser(len(size), 2, 1, CHANNELS, stride=2)
    nn.init.normal_(network.unet.head.weight)  # type: ignore[arg-type]
    found = network(torch.randn(2, 2, *size), torch.rand(2))
    assert found.output.shape == (2, 1, *size) and network.multiple == 8
    padded = [-(-n // 8) * 8 for n in size]
    assert found.features[0].shape[2:] == tuple(n // 2 for n in padded)
    found.output.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_before_training_it_answers_with_nothing() -> None:
    network = ImageDenoiser(2, 1, 1, CHANNELS)
    assert not network(torch.randn(1, 1, 8, 8), torch.zeros(1)).output.any()


def test_brightness_reaches_the_output() -> None:
    network = trained(2)
    x = torch.randn(1, 1, 16, 16)
    t = torch.full((1,), 0.5)
    assert not torch.allclose(network(x, t).output, network(x + 1.0, t).output, atol=1e-2)


def test_label_without_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="num_labels"):
        trained(2)(torch.randn(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long))
