"""What the network and the loss are given in a training step."""

import pytest
import torch

from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.training.prepare_batch import NoisedMaskPrepareBatch, one_hot

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
    prepare = NoisedMaskPrepareBatch(GaussianProcess(), 3, draws=5)
    image, targets, args, kwargs = prepare(batch, "cpu")
    assert image is batch["image"] or torch.equal(image, batch["image"])
    assert args == () and kwargs["x_t"].shape == targets.mask.shape == (10, 3, *size)
    for i, mask in enumerate(targets.mask.argmax(1)):
        assert any(torch.equal(mask, m.long()) for m in batch["label"][i // 5])
    mean = torch.stack([one_hot(m, 3) for m in batch["label"].unbind(1)]).mean(0)
    torch.testing.assert_close(targets.anchor, mean)


@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
def test_noised_masks_and_targets_belong_together(target: str) -> None:
    process = GaussianProcess()
    prepare = NoisedMaskPrepareBatch(process, 3, target, draws=4)  # type: ignore[arg-type]
    _, targets, _, kwargs = prepare(batch_of((6, 5), 1), "cpu")
    a, s = process.coefficients(kwargs["t"], kwargs["x_t"])
    x_0 = 2 * targets.mask - 1
    eps = (kwargs["x_t"] - a * x_0) / s
    expected = {"x_0": x_0, "eps": eps, "v": a * eps - s * x_0}[target]
    torch.testing.assert_close(targets.prediction, expected, rtol=1e-3, atol=1e-2)


def test_pure_noise_is_in_every_batch() -> None:
    prepare = NoisedMaskPrepareBatch(GaussianProcess(n_timesteps=50), 3, draws=3)
    for _ in range(5):
        assert prepare(batch_of((6, 5), 1), "cpu")[3]["t"].max() == 49
