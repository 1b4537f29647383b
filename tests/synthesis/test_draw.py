"""Pairs depend on seed and number alone, and given masks come back as they were."""

from dataclasses import replace

import pytest
import torch
from scipy import ndimage
from torch import nn

from medsegdiff.core.errors import UsageError
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.samplers import make_sampler
from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.networks.image_denoiser import ImageDenoiser
from medsegdiff.synthesis.draw import PairDrawer

SIZES = [(8, 12), (8, 8, 4)]


def drawer(dims: int, outputs: int, seed: int = 0, batch: int = 2, eta: float = 0.0) -> PairDrawer:
    torch.manual_seed(0)
    denoiser = ImageDenoiser(dims, 4, outputs, (8, 8))
    for layer in (denoiser.unet.head, *denoiser.film):
        nn.init.normal_(layer.weight, std=0.3)
    network = ImageDiffusion(denoiser, GaussianProcess(n_timesteps=20)).eval()
    return PairDrawer(network, 3, make_sampler("ddim", eta=eta), 4, seed=seed, batch=batch)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_pairs_depend_on_seed_and_number_alone(size: tuple[int, ...], eta: float) -> None:
    dims = len(size)
    three = drawer(dims, 4, eta=eta).together([0, 1, 2], size)
    last = drawer(dims, 4, batch=1, eta=eta).together([2], size)[0]
    torch.testing.assert_close(three[2].image, last.image, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(three[0].image, three[1].image, atol=0.1)
    other = drawer(dims, 4, seed=1, eta=eta).together([2], size)[0]
    assert not torch.allclose(other.image, last.image, atol=0.1)
    assert last.image.shape == (1, *size) and last.label.shape == size
    assert last.label.dtype == torch.uint8 and last.label.max() <= 2


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_masks_that_are_given_come_back_and_shape_the_image(size: tuple[int, ...]) -> None:
    masks = [torch.randint(3, size, dtype=torch.uint8) for _ in range(3)]
    draws = drawer(len(size), 1)
    assert draws.given_masks and not drawer(len(size), 4).given_masks
    pairs = draws.from_masks([0, 1, 2], masks)
    assert all(torch.equal(p.label, m) for p, m in zip(pairs, masks, strict=True))
    swapped = draws.from_masks([0, 1, 2], masks[::-1])
    assert not torch.allclose(pairs[0].image, swapped[0].image, atol=1e-3)
    torch.testing.assert_close(pairs[1].image, swapped[1].image, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(24, 24), (12, 12, 12)], ids=["2d", "3d"])
def test_smoothing_leaves_fewer_pieces(size: tuple[int, ...]) -> None:
    rough = drawer(len(size), 4)
    smooth = replace(rough, smoothness=1.0)
    pieces = []
    for draws in (rough, smooth):
        label = draws.together([0], size)[0].label.numpy()
        pieces.append(sum(ndimage.label(label == value)[1] for value in range(3)))
    assert 0 < pieces[1] < 0.5 * pieces[0]


def test_a_network_of_neither_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="draws 2 channels"):
        _ = drawer(2, 2).given_masks
