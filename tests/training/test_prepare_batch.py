"""What the network and the loss are given in a training step."""

import pytest
import torch

from medsegdiff.diffusion.categorical import CategoricalProcess
from medsegdiff.diffusion.flow import RectifiedFlow
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.process import Process
from medsegdiff.losses import DiffusionSegmentationLoss
from medsegdiff.training.prepare_batch import NoisedMaskPrepareBatch, one_hot
from medsegdiff.types import Target
from tests.tiny import tiny_segmenter

SIZES = [(6, 5), (4, 5, 3)]


def batch_of(size: tuple[int, ...], raters: int) -> dict[str, torch.Tensor]:
    return {
        "image": torch.randn(2, 1, *size),
        "label": torch.randint(3, (2, raters, *size), dtype=torch.uint8),
    }


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
@pytest.mark.parametrize("raters", [1, 4])
def test_each_draw_is_one_of_its_own_images_readers(size: tuple[int, ...], raters: int) -> None:
    batch = batch_of(size, raters)
    prepare = NoisedMaskPrepareBatch(tiny_segmenter(len(size)), draws=5)
    image, targets, args, _ = prepare(batch, "cpu")
    assert image is batch["image"] or torch.equal(image, batch["image"])
    assert args == () and targets.mask.shape == (10, 3, *size)
    for i, mask in enumerate(targets.mask.argmax(1)):
        assert any(torch.equal(mask, m.long()) for m in batch["label"][i // 5])
    mean = torch.stack([one_hot(m, 3) for m in batch["label"].unbind(1)]).mean(0)
    torch.testing.assert_close(targets.anchor, mean)


@pytest.mark.parametrize("process", [GaussianProcess(), RectifiedFlow(), CategoricalProcess()])
@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
def test_noise_masks_and_targets_belong_together(process: Process, target: Target) -> None:
    if target not in process.targets:
        pytest.skip(f"this process has no target {target}")
    network = tiny_segmenter(2, target, process=process)
    prepare = NoisedMaskPrepareBatch(network, draws=4)
    _, targets, _, drawn = prepare(batch_of((6, 5), 1), "cpu")
    x_0, eps, t = drawn["x_0"], drawn["eps"], drawn["t"]
    assert torch.equal(x_0, network.to_state(2 * targets.mask - 1)) and eps.shape == x_0.shape
    torch.testing.assert_close(targets.prediction, process.target(x_0, eps, t, target))
    torch.testing.assert_close(targets.snr, process.snr(t))
    torch.testing.assert_close(targets.gain, process.gain(t, target))


def test_pure_noise_is_in_every_batch() -> None:
    prepare = NoisedMaskPrepareBatch(
        tiny_segmenter(2, process=GaussianProcess(n_timesteps=50)), draws=3
    )
    for _ in range(5):
        assert prepare(batch_of((6, 5), 1), "cpu")[3]["t"].max() == 49


def test_the_denoiser_learns_in_each_nth_step() -> None:
    network = tiny_segmenter(2, guesses=2)
    prepare, loss = NoisedMaskPrepareBatch(network, every=3), DiffusionSegmentationLoss()
    denoised = []
    for _ in range(5):
        network.zero_grad()
        image, targets, args, drawn = prepare(batch_of((6, 5), 1), "cpu")
        loss(network(image, *args, **drawn), targets).backward()
        denoised.append(network.denoiser.head.weight.grad is not None)
        assert network.encoder.head.weight.grad is not None
    assert denoised == [True, False, False, True, False]
    with pytest.raises(ValueError, match="every must be at least 1"):
        NoisedMaskPrepareBatch(network, every=0)
