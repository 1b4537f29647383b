"""The denoiser: any size, each switch, members, and that it starts as the anchor."""

import itertools

import pytest
import torch

from medsegdiff.networks.denoiser import Denoiser
from medsegdiff.networks.encoder import ImageEncoder

SWITCHES = ("anchor_attention", "dynamic_encoding", "ff_parser", "ss_former")


def pair(dims: int, **options: bool) -> tuple[ImageEncoder, Denoiser]:
    torch.manual_seed(0)
    encoder = ImageEncoder(dims, 1, 3, channels=(8, 8, 16, 16))
    denoiser = Denoiser(dims, 3, encoder.channels, (8, 8, 16), **options)
    torch.nn.init.normal_(denoiser.head.weight, std=0.1)
    return encoder, denoiser


@pytest.mark.parametrize("size", [(16, 16), (13, 21), (8, 9, 7), (16, 8, 8)])
def test_any_size_comes_back(size: tuple[int, ...]) -> None:
    encoder, denoiser = pair(len(size))
    condition = denoiser.prepare(encoder(torch.randn(2, 1, *size)))
    x_t = torch.randn(6, 3, *size)
    assert denoiser(x_t, torch.rand(6), condition).shape == x_t.shape


@pytest.mark.parametrize("on", list(itertools.product([False, True], repeat=4)))
def test_every_switch_works_and_everything_that_is_on_learns(on: tuple[bool, ...]) -> None:
    encoder, denoiser = pair(2, **dict(zip(SWITCHES, on, strict=True)))
    for parameter in denoiser.parameters():  # FiLM starts at zero, which hides the time
        torch.nn.init.normal_(parameter, std=0.2)
    condition = denoiser.prepare(encoder(torch.randn(1, 1, 16, 16)))
    denoiser(torch.randn(2, 3, 16, 16), torch.rand(2), condition).square().mean().backward()
    named = dict(denoiser.named_parameters())
    assert any("ss_former" in name for name in named) == on[3]
    assert any("ff_parser" in name for name in named) == (on[1] and on[2])
    silent = [n for n, p in named.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


def test_it_starts_as_the_anchor() -> None:
    encoder = ImageEncoder(2, 1, 3, channels=(8, 8, 16, 16))
    denoiser = Denoiser(2, 3, encoder.channels, (8, 8, 16))
    condition = denoiser.prepare(encoder(torch.randn(2, 1, 16, 16)))
    output = denoiser(torch.randn(4, 3, 16, 16), torch.rand(4), condition)
    torch.testing.assert_close(output, condition.anchor.repeat_interleave(2, 0))


@pytest.mark.parametrize("size", [(16, 16), (8, 8, 8)], ids=["2d", "3d"])
def test_members_do_not_depend_on_their_batch(size: tuple[int, ...]) -> None:
    encoder, denoiser = pair(len(size))
    images, x_t, t = torch.randn(2, 1, *size), torch.randn(4, 3, *size), torch.rand(4)
    together = denoiser(x_t, t, denoiser.prepare(encoder(images)))
    for i in range(4):
        condition = denoiser.prepare(encoder(images[i // 2 : i // 2 + 1]))
        alone = denoiser(x_t[i : i + 1], t[i : i + 1], condition)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)


def test_time_changes_the_output_once_trained() -> None:
    encoder, denoiser = pair(2)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    condition = denoiser.prepare(encoder(torch.randn(1, 1, 16, 16)))
    x_t = torch.randn(1, 3, 16, 16)
    early = denoiser(x_t, torch.tensor([0.9]), condition)
    late = denoiser(x_t, torch.tensor([0.1]), condition)
    assert not torch.allclose(early, late, atol=1e-3)


@pytest.mark.parametrize("options", [{"patch": 3}, {"patch": 4}])
def test_a_patch_that_does_not_fit_the_encoder_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="power of 2 and an encoder of at least"):
        Denoiser(2, 3, (8, 8, 16, 16), (8, 8, 16), **options)
