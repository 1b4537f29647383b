"""Fusion rules by hand, STAPLE against SimpleITK's, and all of them whatever the batches."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from medsegdiff.core.types import Fusion
from medsegdiff.segmentation.fusion import StepUncertainty, fit_staple, fuse, staple, vote_shares
from medsegdiff.segmentation.sliding_window import EnsembleInferer
from tests.tiny import tiny_segmenter

SIZES = [(40, 36), (20, 18, 16)]
two_and_three_d = pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])


def raters(count: int, size: tuple[int, ...], num_classes: int) -> torch.Tensor:
    """(N, *size) balls of one, two ... classes; raters differ by size and by noise of their own."""
    generator = torch.Generator().manual_seed(1)
    grid = torch.meshgrid(*[torch.linspace(-1, 1, s) for s in size], indexing="ij")
    truth = 0.7 - torch.stack(grid).square().sum(dim=0).sqrt()
    bias = 0.05 * torch.randn(count, *[1] * len(size), generator=generator)
    level = torch.linspace(0.05, 0.15, count).view(bias.shape)
    inside = truth + bias + level * torch.randn(count, *size, generator=generator) > 0
    return (inside * (1 + (grid[0] > 0) * (num_classes - 2))).to(torch.uint8)


def disputed(labels: torch.Tensor) -> torch.Tensor:
    return (labels != labels[0]).any(dim=0)


def as_images(votes: torch.Tensor) -> list[sitk.Image]:
    return [sitk.GetImageFromArray(vote.numpy()[None]) for vote in votes]


def test_the_majority_by_hand_ties_go_to_the_lower_class() -> None:
    votes = torch.tensor([[0, 1, 2, 2], [0, 1, 1, 0], [0, 2, 1, 0], [0, 2, 0, 2]])
    shares = vote_shares(votes, 3)
    torch.testing.assert_close(shares[:, 1], torch.tensor([0.0, 0.5, 0.5]))
    assert shares.argmax(dim=0).tolist() == [0, 1, 1, 0]


@two_and_three_d
def test_the_majority_is_that_of_counted_votes(size: tuple[int, ...]) -> None:
    labels = raters(6, size, 3)
    counted = np.apply_along_axis(lambda v: np.bincount(v, minlength=3).argmax(), 0, labels.numpy())
    np.testing.assert_array_equal(vote_shares(labels, 3).argmax(dim=0), counted)


def test_the_first_expectation_of_staple_by_hand() -> None:
    """Before any is estimated, raters are trusted by 0.99999; the prior are the disputed votes."""
    votes = torch.tensor([[1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 1, 1, 0, 1]])
    posterior = staple(votes, 2, most_rounds=0)
    # Of two votes to one remains one; 7 of the 12 votes on voxels 0, 1, 2 and 4 are for class 1.
    against = 0.00001 / 0.99999 * 5 / 7
    np.testing.assert_allclose(posterior[0, :3], against / (1 + against), rtol=1e-4)
    against = 0.00001 / 0.99999 * 7 / 5
    np.testing.assert_allclose(posterior[1, 4], against / (1 + against), rtol=1e-4)
    assert posterior[:, 3].tolist() == [1.0, 0.0]  # they agree


@two_and_three_d
def test_staple_of_two_classes_is_simpleitks(size: tuple[int, ...]) -> None:
    labels = raters(8, size, 2)
    place = disputed(labels)
    reference = sitk.STAPLEImageFilter()
    reference.SetForegroundValue(1)
    expected = sitk.GetArrayFromImage(reference.Execute(as_images(labels[:, place])))[0]
    posterior = staple(labels, 2)
    assert len(expected) > 100 and 0.2 < expected.mean() < 0.8
    np.testing.assert_allclose(posterior[1, place], expected, atol=1e-3)
    agreed = posterior[:, ~place]
    assert torch.equal(agreed.argmax(dim=0), labels[0, ~place].long())
    assert set(agreed.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(posterior.sum(dim=0), torch.ones(size))


@two_and_three_d
@pytest.mark.parametrize("num_classes", [2, 3])
def test_staple_of_several_classes_is_simpleitks(size: tuple[int, ...], num_classes: int) -> None:
    labels = raters(7, size, num_classes)
    votes = labels[:, disputed(labels)]
    reference = sitk.MultiLabelSTAPLEImageFilter()
    expected = sitk.GetArrayFromImage(reference.Execute(as_images(votes)))[0]
    found = staple(labels, num_classes).argmax(dim=0)[disputed(labels)].numpy()
    assert (found == expected).mean() > 0.99
    majority = vote_shares(votes, num_classes).argmax(dim=0).numpy()
    assert (found == expected).mean() > (majority == expected).mean()


def test_staple_does_not_depend_on_the_background_around() -> None:
    labels = raters(6, (24, 20), 2)
    padded = torch.nn.functional.pad(labels, (30, 30, 30, 30))
    assert torch.equal(staple(padded, 2)[:, 30:-30, 30:-30], staple(labels, 2))


@pytest.mark.parametrize("members", [1, 3])
def test_members_that_agree_are_right(members: int) -> None:
    labels = raters(1, (12, 12), 3).expand(members, -1, -1)
    for rule in (staple, vote_shares):
        assert torch.equal(rule(labels, 4).argmax(dim=0), labels[0].long())


def test_step_uncertainty_by_hand() -> None:
    """Two members, two steps, one voxel of two classes."""
    steps = StepUncertainty()
    for first in ([0.5, 0.5], [0.7, 0.3]):  # one member at a time
        for call, p in enumerate((first, [0.2, 0.8])):
            steps.add(call, torch.tensor(p).view(1, 2, 1))
    expected = np.zeros(2)
    for i, mean in enumerate([np.array([0.6, 0.4]), np.array([0.2, 0.8])], start=1):
        entropy = -(mean * np.log(mean)).sum() / math.log(2)
        expected += np.exp((1 - entropy) / (1 + math.exp(-i / 2))) * mean
    np.testing.assert_allclose(steps.fused[:, 0], expected / expected.sum(), rtol=1e-5)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "heun"])
def test_with_one_step_it_is_the_mean_and_watching_changes_nothing(name: str) -> None:
    network, image = tiny_segmenter(2), torch.randn(1, 12, 10)
    inferers = [
        EnsembleInferer([16, 16], members=4, steps=1, sampler=name, fusion=rule)
        for rule in get_args(Fusion)
    ]
    ensembles = [inferer.ensemble(image, network, "case") for inferer in inferers]
    for ensemble in ensembles:
        assert torch.equal(ensemble.mean, ensembles[0].mean)
        assert torch.equal(ensemble.labels, ensembles[0].labels)
    assert [e.by_steps is not None for e in ensembles] == [False, False, False, True]
    torch.testing.assert_close(ensembles[-1].by_steps, ensembles[0].mean)


@pytest.mark.parametrize("rule", get_args(Fusion))
@pytest.mark.parametrize("size", [(13, 10), (8, 9, 7)], ids=["2d", "3d"])
def test_no_rule_depends_on_how_members_are_batched(size: tuple[int, ...], rule: Fusion) -> None:
    network, image = tiny_segmenter(len(size)), torch.randn(1, *size)

    def run(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        inferer = EnsembleInferer(
            [16] * len(size),
            members=6,
            steps=3,
            mirror_axes=(0,),
            member_batch=batch,
            fusion=rule,
            sampler_options={"eta": 1.0},
        )
        ensemble = inferer.ensemble(image, network, "case")
        fused = fuse(rule, ensemble.mean, ensemble.labels, ensemble.by_steps)
        return ensemble.labels, fused

    (labels, together), (same, alone) = run(6), run(1)
    assert torch.equal(labels, same)
    assert together.shape == (3, *size)
    torch.testing.assert_close(together.sum(dim=0), torch.ones(size))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_mirrored_members_are_mirrored_back_at_every_step() -> None:
    """A denoiser that adds nothing predicts the anchor of its mirror image at each step."""
    network, image = tiny_segmenter(2), torch.randn(1, 16, 16)
    network.denoiser.fine_head.weight.data.zero_()  # type: ignore[operator]
    inferer = EnsembleInferer(
        [16, 16], members=2, steps=3, mirror_axes=(1,), fusion="step_uncertainty"
    )
    ensemble = inferer.ensemble(image, network, "case")
    assert ensemble.by_steps is not None
    torch.testing.assert_close(ensemble.by_steps, ensemble.mean)


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_staple_learns_from_parts_what_it_learns_from_the_whole(parts: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (4, 7, 10), generator=generator, dtype=torch.uint8)
    labels[:, 2] = 1  # a part without disputes
    learned = fit_staple(labels.chunk(parts, dim=1), 3)
    together = torch.cat([learned(part) for part in labels.chunk(parts, dim=1)], dim=1)
    torch.testing.assert_close(together, staple(labels, 3))


def test_staple_without_a_dispute_is_what_all_say() -> None:
    labels = torch.tensor([[0, 1, 2, 1]]).expand(3, -1)
    expected = torch.nn.functional.one_hot(labels[0], 3).T.float()
    assert torch.equal(staple(labels, 3), expected)
