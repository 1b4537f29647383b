"""The loss against its parts, computed by hand."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from medsegdiff.core.types import Target
from medsegdiff.diffusion.flow import RectifiedFlow
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.process import Process
from medsegdiff.models.diffusion_segmenter import SegmenterOutput
from medsegdiff.models.losses import (
    DiffusionSegmentationLoss,
    DiffusionTargets,
    energy_score,
    jaccard_distance,
    noise_weights,
)

SIZES = [(6, 5), (4, 5, 3)]


def example(size: tuple[int, ...]) -> tuple[SegmenterOutput, DiffusionTargets]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, *size, generator=generator)
    mask = F.one_hot(torch.randint(3, (4, *size), generator=generator), 3).movedim(-1, 1).float()
    output = SegmenterOutput(logits[:2], torch.tanh(logits), logits)
    snr, gain = torch.tensor([0.1, 1.0, 7.0, 30.0]), torch.tensor([0.2, 2.0, 8.0, 31.0])
    one = mask.unsqueeze(1)
    return output, DiffusionTargets(mask[::2], one, 2 * one - 1, snr, gain)


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
        2 * F.mse_loss(output.prediction, targets.prediction[:, 0])
        + 3 * dice_ce(output.logits, targets.mask[:, 0], 0.5)
        + 5 * dice_ce(output.anchor, targets.anchor, 0.5)
    )
    torch.testing.assert_close(loss, expected)


def test_a_perfect_output_costs_next_to_nothing() -> None:
    _, targets = example((6, 5))
    mask = targets.prediction[:, 0]
    output = SegmenterOutput(50 * mask[::2], mask, 50 * mask)
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
    errors = (output.prediction - targets.prediction[:, 0]).square().flatten(1).mean(1)
    weights = torch.tensor([0.1 / 0.2, 1.0 / 2.0, 5.0 / 8.0, 5.0 / 31.0])
    torch.testing.assert_close(loss, (weights * errors).mean())


def test_unknown_weightings_are_named() -> None:
    with pytest.raises(ValueError, match=r"min_snr.*'snr'"):
        DiffusionSegmentationLoss(noise_weighting="snr")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_the_distance_of_crisp_masks_is_one_minus_iou(size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (2, *size), generator=generator)
    p, q = (F.one_hot(x, 3).movedim(-1, 0).flatten(1).float() for x in labels)
    a, b = labels
    ious = [float(((a == k) & (b == k)).sum() / ((a == k) | (b == k)).sum()) for k in (1, 2)]
    found = jaccard_distance(p[None], q[None], smooth=0.0)
    assert float(found) == pytest.approx(1 - sum(ious) / 2, abs=1e-6)


def test_empty_masks_are_alike_and_far_from_full_ones() -> None:
    empty = torch.tensor([1.0, 0.0]).view(1, 2, 1).expand(1, 2, 1000)
    assert float(jaccard_distance(empty, empty)) == 0.0
    assert float(jaccard_distance(empty, empty.flip(1))) > 0.99


def test_the_energy_score_by_hand() -> None:
    generator = torch.Generator().manual_seed(0)
    p = torch.rand(6, 2, 4, 5, generator=generator)
    truth = torch.rand(2, 5, 2, 4, 5, generator=generator)

    def d(x: torch.Tensor, y: torch.Tensor) -> float:
        return float(jaccard_distance(x[None].flatten(2), y[None].flatten(2)))

    expected = 0.0
    for number, masks in enumerate(truth):
        own = p[3 * number : 3 * number + 3]
        hit = sum(d(x, y) for x in own for y in masks) / 15
        spread = sum(d(x, z) for x, z in itertools.combinations(own, 2)) / 3
        expected += (hit - spread / 2) / 2
    assert float(energy_score(p, truth)) == pytest.approx(expected, abs=1e-6)


def test_one_guess_has_no_energy_score() -> None:
    output, targets = example((6, 5))
    with pytest.raises(ValueError, match="samples_per_target of at least 2"):
        DiffusionSegmentationLoss(energy_weight=1.0)(output, targets)


def test_the_energy_score_is_least_for_guesses_that_disagree_as_the_readers_do() -> None:
    """Half of the raters mark one lesion, half the other: guess so, not the mean of both."""
    one, other = torch.zeros(2, 2, 20), torch.zeros(2, 2, 20)
    one[:, 1, :10], other[:, 1, 10:] = 1.0, 1.0
    one[:, 0], other[:, 0] = 1 - one[:, 1], 1 - other[:, 1]
    sets = {
        "as the raters": [(a, b) for a in (one, other) for b in (one, other)],
        "always one": [(one, one)],
        "the mean": [((one + other) / 2,) * 2],
    }
    scores = {
        name: sum(
            float(energy_score(torch.stack([a[0], b[0]]), truth[None, :1]))
            for a, b in pairs
            for truth in (one, other)
        )
        / len(pairs)
        for name, pairs in sets.items()
    }
    assert scores["as the raters"] < scores["always one"] - 0.1
    assert scores["as the raters"] < scores["the mean"] - 0.1


def test_the_loss_of_guesses_is_the_energy_score_of_coarse_and_fine_masks() -> None:
    output, targets = example((6, 5))
    fewer = DiffusionTargets(*(x[::2] if len(x) == 4 else x for x in targets[:5] if x is not None))
    loss = DiffusionSegmentationLoss(0.0, 0.0, 5.0, energy_weight=2.0)(output, fewer)
    fine = energy_score(output.logits.softmax(1), fewer.mask)
    coarse = energy_score((output.prediction + 1) / 2, (fewer.prediction + 1) / 2)
    expected = 2 * (fine + coarse) + 5 * dice_ce(output.anchor, targets.anchor, 1.0)
    torch.testing.assert_close(loss, expected)


def test_an_anchor_alone_has_its_own_loss() -> None:
    output, targets = example((6, 5))
    whole = DiffusionSegmentationLoss(noise_weight=0.0, mask_weight=0.0, anchor_weight=0.5)
    torch.testing.assert_close(whole(output.anchor, targets), whole(output, targets))


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
@pytest.mark.parametrize(
    "weights",
    [(1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1)],
)
def test_what_is_not_known_counts_nowhere(
    size: tuple[int, ...], weights: tuple[float, float, float, float]
) -> None:
    """The loss is that of the rest alone, and its gradient is 0 where nothing is known."""
    output, targets = example(size)
    if weights[3]:  # two answers to each of two masks
        targets = DiffusionTargets(targets.anchor, *(x[::2] for x in targets[1:5] if x is not None))
    known = torch.ones(2, 1, *size, dtype=torch.bool)
    known[..., : size[-1] // 2] = False
    targets = targets._replace(known=known, known_states=known)
    noise, mask, anchor, energy = weights
    loss = DiffusionSegmentationLoss(noise, mask, anchor, energy_weight=energy)
    given = [x.clone().requires_grad_() for x in output]
    value = loss(SegmenterOutput(*given), targets)
    value.backward()
    for x in given:
        if x.grad is not None:
            assert not x.grad[..., : size[-1] // 2].any()
    rest = [x[..., size[-1] // 2 :] for x in output]
    cut = targets._replace(
        known=None,
        known_states=None,
        **{k: getattr(targets, k)[..., size[-1] // 2 :] for k in ("anchor", "mask", "prediction")},
    )
    torch.testing.assert_close(value, loss(SegmenterOutput(*rest), cut))


def test_a_batch_of_which_nothing_is_known_has_a_finite_loss() -> None:
    output, targets = example((6, 5))
    known = torch.zeros(2, 1, 6, 5, dtype=torch.bool)
    loss = DiffusionSegmentationLoss()(output, targets._replace(known=known, known_states=known))
    assert torch.isfinite(loss)
