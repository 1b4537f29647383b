"""SS-Former: the Fourier affinity written out as in the paper, the filter, and its gradients."""

from typing import TypeVar

import pytest
import torch

from medsegdiff.networks.transformer import FourierCrossAttention, NeuralBandPassFilter, SSFormer

SIZES = [(4, 6), (3, 4, 5)]


M = TypeVar("M", bound=torch.nn.Module)


def randomised(module: M) -> M:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_the_filter_starts_by_passing_everything(size: tuple[int, ...]) -> None:
    x = torch.randn(2, *size, 8)
    torch.testing.assert_close(NeuralBandPassFilter(8, 5)(x, torch.randn(2, 5)), x)


def test_the_filter_passes_the_band_that_its_profile_names() -> None:
    band_pass = NeuralBandPassFilter(1, 5, bands=9)
    with torch.no_grad():
        band_pass.profile.zero_()
        band_pass.profile[0] = 1.0  # radius zero alone
    wave = torch.cos(torch.arange(16) * torch.pi / 2).expand(16, 16)[None, ..., None]
    time = torch.zeros(1, 5)
    assert float(band_pass(wave, time).detach().abs().max()) < 1e-5
    flat = torch.ones(1, 16, 16, 1)
    torch.testing.assert_close(band_pass(flat, time), flat)


def test_time_scales_and_shifts_the_filter() -> None:
    band_pass = NeuralBandPassFilter(2, 3)
    with torch.no_grad():
        band_pass.modulation.bias.copy_(torch.tensor([1.0, 1.0, -0.5, -0.5]))
    x = torch.randn(1, 4, 4, 2)
    torch.testing.assert_close(band_pass(x, torch.zeros(1, 3)), 1.5 * x)


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_filtered_queries_are_the_papers_filtered_affinity(size: tuple[int, ...]) -> None:
    """F^-1 over the queries' axes of g * (F(a) W_q)(b W_k)^T, in full complex transforms."""
    block = randomised(FourierCrossAttention(8, 5, heads=1))
    a, b, time = torch.randn(1, *size, 8), torch.randn(1, *size, 8), torch.randn(1, 5)
    axes = tuple(range(1, len(size) + 1))
    spectrum = torch.fft.fftn(block.norm_query(a), dim=axes, norm="ortho")
    projected = spectrum @ block.query.weight.T.to(spectrum.dtype)
    # The filter on every frequency, both signs: the response to an impulse of each channel.
    impulse = torch.zeros(1, *size, 8)
    impulse[(0, *[0] * len(size))] = 1.0
    g = torch.fft.fftn(block.band_pass(impulse, time), dim=axes)
    key = block.key_value(block.norm_context(b)).chunk(2, dim=-1)[0].flatten(1, -2)
    in_fourier = torch.einsum("bqc,bkc->bqk", (g * projected).flatten(1, -2), key.to(g.dtype))
    unflattened = in_fourier.view(1, *size, -1)
    affinity = torch.fft.ifftn(unflattened, dim=axes, norm="ortho").real.flatten(1, -2)
    value = block.key_value(block.norm_context(b)).chunk(2, dim=-1)[1].flatten(1, -2)
    attended = (affinity / 8**0.5).softmax(-1) @ value
    tokens = a + block.out(attended).view(a.shape)
    torch.testing.assert_close(block(a, b, time), tokens + block.mlp(tokens), rtol=1e-4, atol=1e-4)


def test_members_are_independent_and_see_their_own_image() -> None:
    former = randomised(SSFormer(8, 5, heads=2))
    x, semantic, time = torch.randn(4, 8, 4, 4), torch.randn(2, 8, 4, 4), torch.randn(4, 5)
    together = former(x, semantic, time)
    for i in range(4):
        alone = former(x[i : i + 1], semantic[i // 2 : i // 2 + 1], time[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    former = randomised(SSFormer(8, 5))
    former(
        torch.randn(2, 8, 4, 5, 3), torch.randn(1, 8, 4, 5, 3), torch.randn(2, 5)
    ).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in former.parameters())
