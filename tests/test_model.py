"""The joint of process, target and networks."""

from functools import partial

import pytest
import torch

from medsegdiff.diffusion.prediction import mask_to_probability
from medsegdiff.diffusion.samplers import ddim, ddpm
from medsegdiff.model import DiffusionSegmenter, SegmenterOutput
from medsegdiff.networks.denoiser import Denoiser
from tests.tiny import tiny_segmenter

SIZES = [(13, 10), (8, 9, 7)]


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_called_with_an_image_alone_it_gives_the_anchor(size: tuple[int, ...]) -> None:
    network = tiny_segmenter(len(size))
    image = torch.randn(2, 1, *size)
    torch.testing.assert_close(network(image), network.encode(image).anchor)


@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_training_output_and_its_gradients(size: tuple[int, ...], target: str) -> None:
    network = tiny_segmenter(len(size), target)  # type: ignore[arg-type]
    x_t, t = torch.randn(4, 3, *size), torch.tensor([0, 30, 60, 99])
    output = network(torch.randn(2, 1, *size), x_t=x_t, t=t)
    assert isinstance(output, SegmenterOutput)
    assert output.anchor.shape == (2, 3, *size)
    assert output.prediction.shape == output.logits.shape == x_t.shape
    (output.anchor.sum() + output.prediction.square().sum() + output.logits[:3].sum()).backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
def test_sampling_and_training_see_the_same_mask(target: str) -> None:
    """One evaluation at step t inside the sampler is what the training pass computes there."""
    network = tiny_segmenter(2, target)  # type: ignore[arg-type]
    image, x_t = torch.randn(1, 1, 12, 12), torch.randn(2, 3, 12, 12)
    sampled = network.x_0(x_t, 40, network.encode(image))
    trained = network(image, x_t=x_t, t=torch.tensor([40, 40])).logits.softmax(1)
    torch.testing.assert_close(mask_to_probability(sampled), trained, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("sampler", [ddpm, ddim, partial(ddim, eta=1.0)])
@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_samples_are_probabilities_and_differ(size: tuple[int, ...], sampler: object) -> None:
    network = tiny_segmenter(len(size))
    with torch.no_grad():
        condition = network.encode(torch.randn(2, 1, *size))
        x_T = torch.randn(6, 3, *size)
        p = network.sample(condition, x_T, torch.randn_like, sampler=sampler, steps=4)  # type: ignore[arg-type]
    assert p.shape == x_T.shape and p.min() >= 0 and p.max() <= 1
    torch.testing.assert_close(p.sum(1), torch.ones_like(p[:, 0]))
    assert not torch.allclose(p[0], p[1], atol=1e-3)


def test_the_image_is_encoded_once_however_many_masks_are_drawn() -> None:
    network = tiny_segmenter(2)
    calls = []
    network.encoder.register_forward_hook(lambda *_: calls.append(1))
    condition = network.encode(torch.randn(1, 1, 12, 12))
    network.sample(condition, torch.randn(8, 3, 12, 12), torch.randn_like, sampler=ddim, steps=5)
    assert len(calls) == 1


def test_an_anchor_can_only_be_added_to_logits() -> None:
    network = tiny_segmenter(2)
    assert isinstance(network.denoiser, Denoiser)
    with pytest.raises(ValueError, match="add_anchor needs target 'x_0'"):
        DiffusionSegmenter(network.encoder, network.denoiser, network.process, "eps")
