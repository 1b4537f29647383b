"""Strides and kernels of each axis: coarse slices stay apart, and the default is as before."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.samplers import make_sampler
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from medsegdiff.networks.denoiser import Denoiser, in_cells
from medsegdiff.networks.encoder import ImageEncoder
from medsegdiff.networks.layers import per_axis, per_level
from medsegdiff.segmentation.noise import MemberNoise, blocks_of
from medsegdiff.segmentation.sliding_window import EnsembleInferer

STRIDES = [[1, 1, 1], [2, 2, 1], [2, 2, 1], [2, 2, 2]]
KERNELS = [[3, 3, 1], [3, 3, 1], [3, 3, 3], [3, 3, 3]]
CHANNELS = (8, 8, 8, 16)


def stack_segmenter(
    conditioning: str = "medsegdiff", samples_per_target: int = 2
) -> DiffusionSegmenter:
    """A network for volumes of few thick slices, with random weights that make members differ."""
    torch.manual_seed(0)
    encoder = ImageEncoder(3, 1, 2, CHANNELS, strides=STRIDES, kernels=KERNELS)
    denoiser = Denoiser(
        3,
        2,
        CHANNELS,
        (8, 8, 16),
        stride=[2, 2, 1],
        strides=STRIDES,
        kernels=KERNELS,
        conditioning=conditioning,  # type: ignore[arg-type]
        further_inputs=samples_per_target - 1,
    )
    for head in (denoiser.head, denoiser.fine_head):
        torch.nn.init.normal_(head.weight, std=1.0)  # type: ignore[arg-type]
    process = GaussianProcess(n_timesteps=100)
    return DiffusionSegmenter(encoder, denoiser, process, samples_per_target=samples_per_target)


def test_a_stack_of_eight_slices_keeps_them_until_the_last_level() -> None:
    network = stack_segmenter()
    found = network.encoder(torch.randn(1, 1, 32, 40, 8))
    assert [tuple(f.shape[2:]) for f in found.features] == [
        (32, 40, 8),
        (16, 20, 8),
        (8, 10, 8),
        (4, 5, 4),
    ]
    assert network.encoder.multiple == (8, 8, 2) and network.stride == (2, 2, 1)
    assert network.state_size((32, 40, 8)) == [16, 20, 8]
    assert network.state_size((30, 33, 7)) == [16, 20, 8]


@pytest.mark.parametrize("conditioning", ["medsegdiff", "concat", "cross_attention", "film"])
def test_any_size_and_conditioning(conditioning: str) -> None:
    network = stack_segmenter(conditioning).eval()
    for size in ((30, 33, 7), (16, 16, 1), (9, 17, 3)):
        image = torch.randn(1, 1, *size)
        assert network(image).shape == (1, 2, *size)
        condition = network.encode(image)
        x_T = torch.randn(3, 2, *network.state_size(size))
        p = network.sample(condition, x_T, torch.randn_like, sampler=make_sampler("ddim"), steps=2)
        assert p.shape == (3, 2, *size)
        torch.testing.assert_close(p.sum(dim=1), torch.ones(3, *size))


def test_every_parameter_learns() -> None:
    network = stack_segmenter().train()
    image, mask = torch.randn(1, 1, 16, 16, 4), torch.rand(2, 2, 16, 16, 4)
    x_0 = network.to_state(2.0 * mask - 1.0)
    assert x_0.shape == (2, 2, 8, 8, 4)
    found = network(image, x_0=x_0, eps=torch.randn_like(x_0), t=torch.tensor([99, 50]))
    sum(part.square().mean() for part in found).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_members_do_not_depend_on_the_batch() -> None:
    network = stack_segmenter().eval()
    image = torch.randn(1, 24, 24, 5)
    settings: dict[str, Any] = {"members": 4, "steps": 1, "sampler_options": {"eta": 1.0}}
    one, other = (
        EnsembleInferer((24, 24, 8), member_batch=batch, **settings).ensemble(image, network, "c")
        for batch in (1, 4)
    )
    torch.testing.assert_close(one.labels, other.labels)
    torch.testing.assert_close(one.mean, other.mean)
    assert not torch.equal(one.labels[0], one.labels[1])


def test_windows_share_the_noise_of_a_stack() -> None:
    grid = [16, 16, 6]
    whole = [slice(0, 32), slice(0, 32), slice(0, 6)]
    part = [slice(16, 32), slice(0, 32), slice(2, 6)]
    blocks = blocks_of(grid)
    all_of_it = MemberNoise(0, "c", [3], whole, grid, blocks, (2, 2, 1)).start(2)
    some = MemberNoise(0, "c", [3], part, [8, 16, 4], blocks, (2, 2, 1)).start(2)
    torch.testing.assert_close(some, all_of_it[:, :, 8:, :, 2:])


@pytest.mark.parametrize("dims", [2, 3])
def test_twos_and_threes_are_the_default(dims: int) -> None:
    torch.manual_seed(0)
    usual = ImageEncoder(dims, 1, 3, CHANNELS)
    torch.manual_seed(0)
    said = ImageEncoder(dims, 1, 3, CHANNELS, strides=[1, 2, 2, 2], kernels=[[3] * dims] * 4)
    assert all(torch.equal(a, said.state_dict()[n]) for n, a in usual.state_dict().items())
    torch.manual_seed(0)
    plain = Denoiser(dims, 3, CHANNELS)
    torch.manual_seed(0)
    told = Denoiser(dims, 3, CHANNELS, stride=[2] * dims, strides=[1, 2, 2, 2])
    assert all(torch.equal(a, told.state_dict()[n]) for n, a in plain.state_dict().items())


def test_noise_in_cells_has_variance_1_where_an_axis_is_shorter() -> None:
    torch.manual_seed(0)
    cells = in_cells(torch.randn(2000, 1, 8, 8, 2), 4)
    assert cells.shape[2:] == (4, 4, 4)
    assert cells.var().item() == pytest.approx(1.0, abs=0.05)


def test_wrong_numbers_of_values_are_told() -> None:
    with pytest.raises(ValueError, match="each of 3 axes"):
        per_axis([2, 2], 3)
    with pytest.raises(ValueError, match="each of 4 levels"):
        per_level([1, 2], 1, 2, 4, 2)
    with pytest.raises(ValueError, match="comes to that stride"):
        Denoiser(3, 2, CHANNELS, (8, 8), stride=[2, 2, 2], strides=STRIDES)
