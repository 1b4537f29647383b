"""What the network and the loss are given in a training step."""

import pytest
import torch

from medsegdiff.core.types import UNKNOWN_CLASS, Target
from medsegdiff.diffusion.categorical import CategoricalProcess
from medsegdiff.diffusion.flow import RectifiedFlow
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.process import Process
from medsegdiff.models.losses import (
    AnchorTargets,
    DiffusionSegmentationLoss,
    DiffusionTargets,
)
from medsegdiff.training.prepare_batch import NoisedMaskPrepareBatch, one_hot
from tests.tiny import tiny_segmenter

SIZES = [(6, 5), (4, 5, 3)]


def batch_of(size: tuple[int, ...], raters: int) -> dict[str, torch.Tensor]:
    return {
        "image": torch.randn(2, 1, *size),
        "label": torch.randint(3, (2, raters, *size), dtype=torch.uint8),
    }


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
@pytest.mark.parametrize("raters", [1, 4])
def test_each_draw_is_one_of_its_own_images_raters(size: tuple[int, ...], raters: int) -> None:
    batch = batch_of(size, raters)
    prepare = NoisedMaskPrepareBatch(tiny_segmenter(len(size)), draws=5)
    image, targets, args, _ = prepare(batch, "cpu")
    assert isinstance(targets, DiffusionTargets)
    assert image is batch["image"] or torch.equal(image, batch["image"])
    assert args == () and targets.mask.shape == (10, 1, 3, *size)
    for i, mask in enumerate(targets.mask[:, 0].argmax(1)):
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
    assert isinstance(targets, DiffusionTargets)
    x_0, eps, t = drawn["x_0"], drawn["eps"], drawn["t"]
    assert torch.equal(x_0, network.to_state(2 * targets.mask[:, 0] - 1)) and eps.shape == x_0.shape
    torch.testing.assert_close(targets.prediction[:, 0], process.target(x_0, eps, t, target))
    torch.testing.assert_close(targets.snr, process.snr(t))
    torch.testing.assert_close(targets.gain, process.gain(t, target))


def test_pure_noise_is_in_every_batch() -> None:
    prepare = NoisedMaskPrepareBatch(
        tiny_segmenter(2, process=GaussianProcess(n_timesteps=50)), draws=3
    )
    for _ in range(5):
        assert prepare(batch_of((6, 5), 1), "cpu")[3]["t"].max() == 49


def test_draws_of_pure_noise_are_compared_with_all_raters() -> None:
    batch = batch_of((6, 5), 4)
    prepare = NoisedMaskPrepareBatch(
        tiny_segmenter(2, process=GaussianProcess(n_timesteps=50)), 8, pure_noise=0.5, raters="all"
    )
    _, targets, _, drawn = prepare(batch, "cpu")
    assert isinstance(targets, DiffusionTargets)
    assert targets.mask.shape[:2] == targets.prediction.shape[:2] == (16, 4)
    pure = drawn["t"] == 49
    assert 8 <= pure.sum() <= 10  # the half, and what the others have at the end
    for draw, mask in enumerate(targets.mask.argmax(2)):
        if pure[draw]:
            assert torch.equal(mask, batch["label"][draw // 8].long())
        else:
            assert all(torch.equal(mask[0], other) for other in mask)
    noised = prepare.network.to_state(2 * targets.mask[:, 0] - 1)
    torch.testing.assert_close(drawn["x_0"][~pure], noised[~pure])


@pytest.mark.parametrize(("share", "expected"), [(0.25, 25), (0.75, 75), (1.0, 100)])
def test_the_share_of_pure_noise_is_kept(share: float, expected: int) -> None:
    process = GaussianProcess(n_timesteps=10_000)
    prepare = NoisedMaskPrepareBatch(tiny_segmenter(2, process=process), 50, pure_noise=share)
    t = prepare(batch_of((6, 5), 1), "cpu")[3]["t"]
    assert expected <= (t == 9999).sum() <= expected + 1


def test_a_soft_label_is_noised_and_compared_with() -> None:
    batch = batch_of((6, 5), 4)
    prepare = NoisedMaskPrepareBatch(tiny_segmenter(2), draws=3, raters="mean")
    _, targets, _, drawn = prepare(batch, "cpu")
    assert isinstance(targets, DiffusionTargets)
    assert targets.mask.shape == (6, 1, 3, 6, 5)
    torch.testing.assert_close(targets.mask[::3, 0], targets.anchor)
    torch.testing.assert_close(drawn["x_0"][::3], prepare.network.to_state(2 * targets.anchor - 1))


def test_drawing_nothing_or_unknown_readers_is_refused() -> None:
    with pytest.raises(ValueError, match="every and draws must be at least 1"):
        NoisedMaskPrepareBatch(tiny_segmenter(2), draws=0)
    with pytest.raises(ValueError, match="pure_noise must be a share, from 0 to 1"):
        NoisedMaskPrepareBatch(tiny_segmenter(2), pure_noise=2)
    with pytest.raises(ValueError, match=r"\['one', 'all', 'mean'\]. Got 'two'"):
        NoisedMaskPrepareBatch(tiny_segmenter(2), raters="two")  # type: ignore[arg-type]


def test_the_denoiser_learns_in_each_nth_step() -> None:
    network = tiny_segmenter(2, samples_per_target=2)
    prepare, loss = NoisedMaskPrepareBatch(network, every=3), DiffusionSegmentationLoss()
    denoised = []
    for _ in range(5):
        network.zero_grad()
        image, targets, args, drawn = prepare(batch_of((6, 5), 1), "cpu")
        loss(network(image, *args, **drawn), targets).backward()
        denoised.append(network.denoiser.head.weight.grad is not None)
        assert network.encoder.head.weight.grad is not None
    assert denoised == [True, False, False, True, False]
    with pytest.raises(ValueError, match="every and draws must be at least 1"):
        NoisedMaskPrepareBatch(network, every=0)


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_ignored_voxels_are_told_to_the_loss(size: tuple[int, ...]) -> None:
    network = tiny_segmenter(len(size))
    prepare = NoisedMaskPrepareBatch(network, draws=2)
    batch = batch_of(size, 2)
    torch.manual_seed(0)
    before = prepare(batch, "cpu")[1]
    assert isinstance(before, DiffusionTargets)
    assert before.known is None and before.known_states is None
    batch["label"][1, 0, ..., :2] = UNKNOWN_CLASS
    image, targets, _, drawn = prepare(batch, "cpu")
    assert isinstance(targets, DiffusionTargets)
    assert targets.known is not None and targets.known_states is not None
    assert targets.known[0].all() and targets.known[1, ..., 2:].all()
    assert not targets.known[1, ..., :2].any()
    assert targets.known_states.shape[2:] == drawn["x_0"].shape[2:]
    loss = DiffusionSegmentationLoss()
    known = loss(network(image, **drawn), targets)
    changed = targets._replace(anchor=targets.anchor.clone())
    changed.anchor[1, ..., :2] = 1.0 / 3.0
    torch.manual_seed(1)
    first = loss(network(image, **drawn), targets)
    torch.manual_seed(1)
    torch.testing.assert_close(first, loss(network(image, **drawn), changed))
    assert torch.isfinite(known)


def test_a_step_of_the_encoder_alone_prepares_no_noise() -> None:
    network = tiny_segmenter(2)
    prepare = NoisedMaskPrepareBatch(network, anchor_steps=1)
    batch = batch_of((6, 5), 2)
    batch["label"][0, 0, 0] = UNKNOWN_CLASS
    state = torch.get_rng_state()
    _, alone, _, drawn = prepare(batch, "cpu")
    assert isinstance(alone, AnchorTargets) and drawn == {}
    assert torch.equal(state, torch.get_rng_state())
    _, whole, _, _ = prepare(batch, "cpu")
    assert isinstance(whole, DiffusionTargets) and whole.known is not None
    assert alone.known is not None and torch.equal(alone.known, whole.known)
    torch.testing.assert_close(alone.anchor, whole.anchor)
