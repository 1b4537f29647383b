"""The loss against its parts, computed by hand."""

import pytest
import torch
import torch.nn.functional as F

from medsegdiff.diffusion.flow import RectifiedFlow
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.process import Process
from medsegdiff.losses import DiffusionSegmentationLoss, DiffusionTargets, noise_weights
from medsegdiff.model import SegmenterOutput
from medsegdiff.types import Target

SIZES = [(6, 5), (4, 5, 3)]


def example(size: tuple[int, ...]) -> tuple[SegmenterOutput, DiffusionTargets]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, *size, generator=generator)
    mask = F.one_hot(torch.randint(3, (4, *size), generator=generator), 3).movedim(-1, 1).float()
    output = SegmenterOutput(logits[:2], torch.tanh(logits), logits)
    snr, gain = torch.tensor([0.1, 1.0, 7.0, 30.0]), torch.tensor([0.2, 2.0, 8.0, 31.0])
    return output, DiffusionTargets(mask[::2], mask, 2 * mask - 1, snr, gain)


def dice_ce(logits: torch.Tensor, mask: torch.Tensor, dice_weight: float) -> torch.Tensor:
    p = logits.softmax(1)[:, 1:]
    m = mask[:, 1:]
    axes = (0, *range(2, logits.ndim))
    dice = 1 - (2 * (p * m).sum(axes) + 1e-5) / (p.sum(axes) + m.sum(axes) + 1e-5)
    return dice_weight * dice.mean() - (mask * logits.log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_it_is_the_weighted_sum_of_its_parts(size: tuple[int, ...]) -> None:
    output, targets = example(size)
    loss = DiffusionSegmentationLoss(2.0, 3.0, 5.0, dice_weight=0.5)(output, targets)
    expected = (
        2 * F.mse_loss(output.prediction, targets.prediction)
        + 3 * dice_ce(output.logits, targets.mask, 0.5)
        + 5 * dice_ce(output.anchor, targets.anchor, 0.5)
    )
    torch.testing.assert_close(loss, expected)


def test_a_perfect_output_costs_next_to_nothing() -> None:
    _, targets = example((6, 5))
    sure = 50 * targets.prediction
    output = SegmenterOutput(sure[::2], targets.prediction, sure)
    assert float(DiffusionSegmentationLoss()(output, targets)) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
def test_noise_weights_are_those_of_their_papers(target: Target) -> None:
    """Hang et al. 2023, sec. 3.4, and Salimans & Ho 2022, sec. 4, written out for each target."""
    process, t = GaussianProcess("linear", zero_snr=False), torch.tensor([0, 300, 999])
    gamma = process.alphas_cumprod[t]
    snr = (gamma / (1 - gamma)).float()
    divisor = {"x_0": torch.ones(3), "eps": snr, "v": snr + 1}[target]
    gain = process.gain(t, target)
    torch.testing.assert_close(process.snr(t), snr)
    min_snr = torch.minimum(snr, torch.tensor(5.0)) / divisor
    torch.testing.assert_close(noise_weights(snr, gain, "min_snr"), min_snr, rtol=1e-4, atol=0)
    plus_1 = (snr + 1) / divisor
    torch.testing.assert_close(noise_weights(snr, gain, "snr_plus_1"), plus_1, rtol=1e-4, atol=0)
    assert torch.equal(noise_weights(snr, gain, "constant"), torch.ones(3))


@pytest.mark.parametrize("process", [GaussianProcess(), RectifiedFlow(base_scale=0.5)])
@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
def test_weighted_errors_are_the_same_error_of_x_0_whatever_the_target(
    process: Process, target: Target
) -> None:
    """Two masks in one x_t: the weighted error of any target is the weighted error of x_0."""
    t = torch.tensor([10, 500, 900])
    x_0, other, eps = torch.randn(3, 3, 2, 20, dtype=torch.float64).unbind()
    a, s = process.coefficients(t, x_0)  # type: ignore[attr-defined]
    other_eps = eps + a / s * (x_0 - other)
    error = process.target(x_0, eps, t, target) - process.target(other, other_eps, t, target)
    weights = noise_weights(process.snr(t), process.gain(t, target), "snr_plus_1")
    expected = (process.snr(t) + 1) * (x_0 - other).square().mean((1, 2))
    torch.testing.assert_close(weights * error.square().mean((1, 2)), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("weighting", ["min_snr", "snr_plus_1"])
@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
def test_weights_are_finite_at_pure_noise(target: Target, weighting: str) -> None:
    process, t = GaussianProcess(), torch.tensor([999])
    weights = noise_weights(process.snr(t), process.gain(t, target), weighting)  # type: ignore[arg-type]
    assert weights.isfinite().all()


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_the_noise_loss_is_weighted_draw_by_draw(size: tuple[int, ...]) -> None:
    output, targets = example(size)
    loss = DiffusionSegmentationLoss(1.0, 0.0, 0.0, noise_weighting="min_snr")(output, targets)
    errors = (output.prediction - targets.prediction).square().flatten(1).mean(1)
    weights = torch.tensor([0.1 / 0.2, 1.0 / 2.0, 5.0 / 8.0, 5.0 / 31.0])
    torch.testing.assert_close(loss, (weights * errors).mean())


def test_unknown_weightings_are_named() -> None:
    with pytest.raises(ValueError, match=r"min_snr.*'snr'"):
        DiffusionSegmentationLoss(noise_weighting="snr")  # type: ignore[arg-type]
