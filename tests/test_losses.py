"""The loss against its parts, computed by hand."""

import pytest
import torch
import torch.nn.functional as F

from medsegdiff.losses import DiffusionSegmentationLoss, DiffusionTargets
from medsegdiff.model import SegmenterOutput

SIZES = [(6, 5), (4, 5, 3)]


def example(size: tuple[int, ...]) -> tuple[SegmenterOutput, DiffusionTargets]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, *size, generator=generator)
    mask = F.one_hot(torch.randint(3, (4, *size), generator=generator), 3).movedim(-1, 1).float()
    output = SegmenterOutput(logits[:2], torch.tanh(logits), logits)
    return output, DiffusionTargets(mask[::2], mask, 2 * mask - 1)


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
