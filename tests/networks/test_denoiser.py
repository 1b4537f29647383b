"""The denoiser: any size, each switch, members, and that it starts as the anchor."""

import itertools
from typing import get_args

import pytest
import torch
from torch.overrides import TorchFunctionMode

from medsegdiff.networks.conditioning import Conditioning
from medsegdiff.networks.denoiser import Conditioned, Denoiser, in_cells
from medsegdiff.networks.encoder import Condition, ImageEncoder

SWITCHES = ("anchor_attention", "dynamic_encoding", "ff_parser", "ss_former")
every_conditioning = pytest.mark.parametrize("conditioning", get_args(Conditioning))
two_and_three_d = pytest.mark.parametrize("size", [(16, 16), (8, 8, 8)], ids=["2d", "3d"])


def pair(dims: int, **options: bool | str | int) -> tuple[ImageEncoder, Denoiser]:
    torch.manual_seed(0)
    encoder = ImageEncoder(dims, 1, 3, channels=(8, 8, 16, 16))
    denoiser = Denoiser(dims, 3, encoder.channels, (8, 8, 16), **options)  # type: ignore[arg-type]
    for head in (denoiser.head, denoiser.fine_head):
        torch.nn.init.normal_(head.weight, std=0.1)  # type: ignore[arg-type]
    return encoder, denoiser


def everything(
    denoiser: Denoiser, x_t: torch.Tensor, t: torch.Tensor, condition: Conditioned
) -> torch.Tensor:
    """Coarse and fine logits of each member, flat."""
    denoised = denoiser(x_t, t, condition)
    fine = denoiser.refine(denoised.features, condition)
    return torch.cat([denoised.output.flatten(1), fine.flatten(1)], dim=1)


@every_conditioning
@pytest.mark.parametrize("size", [(16, 16), (13, 21), (8, 9, 7), (16, 8, 8)])
def test_any_size_comes_back(size: tuple[int, ...], conditioning: str) -> None:
    encoder, denoiser = pair(len(size), conditioning=conditioning)
    condition = denoiser.prepare(encoder(torch.randn(2, 1, *size)))
    x_t = torch.randn(6, 3, *condition.coarse.shape[2:])
    denoised = denoiser(x_t, torch.rand(6), condition)
    assert denoised.output.shape == x_t.shape
    assert denoiser.refine(denoised.features, condition).shape == (6, 3, *size)


@pytest.mark.parametrize("on", list(itertools.product([False, True], repeat=4)))
def test_every_switch_works_and_everything_that_is_on_learns(on: tuple[bool, ...]) -> None:
    encoder, denoiser = pair(2, **dict(zip(SWITCHES, on, strict=True)))
    for parameter in denoiser.parameters():  # FiLM starts at zero, which hides the time
        torch.nn.init.normal_(parameter, std=0.2)
    condition = denoiser.prepare(encoder(torch.randn(1, 1, 16, 16)))
    everything(
        denoiser, torch.randn(2, 3, 8, 8), torch.rand(2), condition
    ).square().mean().backward()
    named = dict(denoiser.named_parameters())
    assert any("ss_former" in name for name in named) == on[3]
    assert any("ff_parser" in name for name in named) == (on[1] and on[2])
    silent = [n for n, p in named.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent


@every_conditioning
@pytest.mark.parametrize(
    "size", [(16, 16), (16, 16, 8)], ids=["2d", "3d"]
)  # some tokens at the end
def test_every_conditioning_uses_the_image_and_learns(
    size: tuple[int, ...], conditioning: str
) -> None:
    """The anchor is left out: it would bring the image in by itself."""
    encoder, denoiser = pair(len(size), conditioning=conditioning, add_anchor=False)
    for parameter in denoiser.parameters():  # FiLM starts at zero, which hides the time
        torch.nn.init.normal_(parameter, std=0.2)
    condition, other = encoder(torch.randn(2, 1, *size)), encoder(torch.randn(2, 1, *size))
    x_t, t = torch.randn(2, 3, *(s // 2 for s in size)), torch.rand(2)
    prepared = denoiser.prepare(condition)
    output = everything(denoiser, x_t, t, prepared)
    for level in (1, 2, 3):  # of the encoder: level 0 is finer than the masks
        features = list(condition.features)
        features[level] = other.features[level]
        mixed = denoiser.prepare(Condition(condition.anchor, tuple(features)))
        assert not torch.allclose(output, everything(denoiser, x_t, t, mixed), atol=1e-3), level
    output.square().mean().backward()
    silent = [n for n, p in denoiser.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


class Calls(TorchFunctionMode):
    """Notes the names of all functions of torch that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(getattr(func, "__name__", ""))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("conditioning", ["concat", "cross_attention", "film"])
def test_what_belongs_to_the_image_is_neither_copied_nor_projected_again(conditioning: str) -> None:
    encoder, denoiser = pair(2, conditioning=conditioning)
    condition = denoiser.prepare(encoder(torch.randn(1, 1, 16, 16)))
    again: list[str] = []
    for name, module in denoiser.named_modules():
        if name.endswith((".project", ".key", ".value")):
            module.register_forward_hook(lambda *of, name=name: again.append(name))
    with Calls() as called:
        denoiser(torch.randn(4, 3, 8, 8), torch.rand(4), condition)
    assert again == [] and not called.names & {"repeat", "repeat_interleave", "tile", "clone"}


def test_each_conditioning_puts_its_modules_where_it_says() -> None:
    def names(**options: object) -> list[str]:
        denoiser = Denoiser(2, 3, (8, 8, 16, 16), (8, 8, 16), **options)  # type: ignore[arg-type]
        return [type(module).__name__ for module in denoiser.meet]

    published = ["UncertainSpatialAttention", "DynamicConditionalEncoding", "SemanticCondition"]
    assert names() == published
    assert names(**dict.fromkeys(SWITCHES, False)) == ["ConditioningBlock"] * 3
    assert names(conditioning="concat") == ["ConcatMix"] * 3
    assert names(conditioning="film") == ["SpatialFiLM"] * 3
    assert names(conditioning="cross_attention") == [
        "ConditioningBlock",
        "ConditioningBlock",
        "AttentionToImage",
    ]


def test_one_time_for_all_is_the_same_as_each_its_own() -> None:
    encoder, denoiser = pair(2)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    condition, x_t = denoiser.prepare(encoder(torch.randn(2, 1, 16, 16))), torch.randn(4, 3, 8, 8)
    shared = everything(denoiser, x_t, torch.tensor([0.3]), condition)
    each = everything(denoiser, x_t, torch.full((4,), 0.3), condition)
    torch.testing.assert_close(shared, each, rtol=1e-4, atol=1e-4)


def test_an_unknown_conditioning_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of \['medsegdiff', 'concat', .*Got 'add'"):
        Denoiser(2, 3, (8, 8, 16, 16), (8, 8, 16), conditioning="add")  # type: ignore[arg-type]


@every_conditioning
def test_it_starts_as_the_anchor(conditioning: Conditioning) -> None:
    encoder = ImageEncoder(2, 1, 3, channels=(8, 8, 16, 16))
    denoiser = Denoiser(2, 3, encoder.channels, (8, 8, 16), conditioning=conditioning)
    condition = denoiser.prepare(encoder(torch.randn(2, 1, 16, 16)))
    denoised = denoiser(torch.randn(4, 3, 8, 8), torch.rand(4), condition)
    torch.testing.assert_close(denoised.output, condition.coarse.repeat_interleave(2, 0))
    fine = denoiser.refine(denoised.features, condition)
    torch.testing.assert_close(fine, condition.anchor.repeat_interleave(2, 0))
    pooled = torch.nn.functional.avg_pool2d(condition.anchor, 2)
    torch.testing.assert_close(condition.coarse, pooled)


@every_conditioning
@two_and_three_d
def test_members_do_not_depend_on_their_batch(size: tuple[int, ...], conditioning: str) -> None:
    encoder, denoiser = pair(len(size), conditioning=conditioning)
    images, t = torch.randn(2, 1, *size), torch.rand(4)
    x_t = torch.randn(4, 3, *(s // 2 for s in size))
    together = everything(denoiser, x_t, t, denoiser.prepare(encoder(images)))
    for i in range(4):
        condition = denoiser.prepare(encoder(images[i // 2 : i // 2 + 1]))
        alone = everything(denoiser, x_t[i : i + 1], t[i : i + 1], condition)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)


def test_time_changes_the_output_once_trained() -> None:
    encoder, denoiser = pair(2)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    condition = denoiser.prepare(encoder(torch.randn(1, 1, 16, 16)))
    x_t = torch.randn(1, 3, 8, 8)
    early = denoiser(x_t, torch.tensor([0.9]), condition).output
    late = denoiser(x_t, torch.tensor([0.1]), condition).output
    assert not torch.allclose(early, late, atol=1e-3)


@pytest.mark.parametrize("options", [{"stride": 3}, {"stride": 4}])
def test_a_stride_that_does_not_fit_the_encoder_is_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="an encoder that comes to that stride"):
        Denoiser(2, 3, (8, 8, 16, 16), (8, 8, 16), **options)


@two_and_three_d
def test_a_latent_is_all_that_members_differ_by_at_pure_noise(size: tuple[int, ...]) -> None:
    encoder, denoiser = pair(len(size), further_inputs=1, latent=2)
    for parameter in denoiser.parameters():  # FiLM starts at zero, which hides the latent
        torch.nn.init.normal_(parameter, std=0.2)
    condition = denoiser.prepare(encoder(torch.randn(1, 1, *size)))
    state = condition.coarse.shape[2:]
    x_t, noise = torch.randn(2, 3, *state), torch.randn(1, 3, *state)
    half = noise.shape[2] // 2
    shuffled = torch.cat([part.flip(2) for part in noise.split(half, dim=2)], dim=2)  # within cells

    def denoised(x_t: torch.Tensor, noise: torch.Tensor, t: float) -> torch.Tensor:
        return everything(denoiser, torch.cat([x_t, noise], 1), torch.tensor([t]), condition)

    same = denoised(x_t[:1], noise, 1.0)
    torch.testing.assert_close(denoised(x_t[1:], shuffled, 1.0), same)
    assert not torch.allclose(denoised(x_t[:1], torch.randn_like(noise), 1.0), same)
    assert not torch.allclose(denoised(x_t[1:], noise, 0.5), denoised(x_t[:1], noise, 0.5))


def test_a_latent_of_white_noise_is_standard_normal() -> None:
    torch.manual_seed(0)
    for size in ((32, 32), (12, 16, 20)):
        cells = in_cells(torch.randn(200, 3, *size), 4)
        assert cells.shape == (200, 3, *[4] * len(size))
        assert float(cells.var()) == pytest.approx(1.0, abs=0.05)


def test_a_latent_needs_noise() -> None:
    with pytest.raises(ValueError, match="further_inputs of at least 1"):
        pair(2, latent=2)
