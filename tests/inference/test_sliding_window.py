"""Ensembles of images smaller and larger than the window."""

from typing import Any

import pytest
import torch

from medsegdiff.diffusion.categorical import CategoricalProcess
from medsegdiff.diffusion.prediction import anchor_mask
from medsegdiff.inference import noise
from medsegdiff.inference.sliding_window import EnsembleInferer
from medsegdiff.networks.denoiser import Conditioned
from tests.tiny import tiny_segmenter

SIZES = [(13, 10), (8, 9, 7)]


def test_the_anchor_is_the_mean_over_mirror_images() -> None:
    network, image = tiny_segmenter(2), torch.randn(1, 9, 12)
    inferer = EnsembleInferer([32, 32], members=4, steps=1, mirror_axes=(0, 1))
    masks = [
        network(image.flip(axes)[None]).softmax(1)[0].flip(axes) for axes in ([], [1], [2], [1, 2])
    ]
    found = inferer.ensemble(image, network, "case").anchor
    torch.testing.assert_close(found, torch.stack(masks).mean(0))


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
@pytest.mark.parametrize("mirror", [(), (0,)])
def test_statistics_are_those_of_the_members(size: tuple[int, ...], mirror: tuple) -> None:
    network = tiny_segmenter(len(size))
    inferer = EnsembleInferer([32] * len(size), members=6, steps=2, mirror_axes=mirror)
    ensemble = inferer.ensemble(torch.randn(1, *size), network, "case")
    assert ensemble.mean.shape == ensemble.variance.shape == ensemble.anchor.shape == (3, *size)
    torch.testing.assert_close(ensemble.mean.sum(0), torch.ones(size))
    torch.testing.assert_close(ensemble.anchor.sum(0), torch.ones(size))
    assert ensemble.variance.min() >= 0 and 0 < ensemble.variance.max() <= 0.25
    assert ensemble.labels.shape == (6, *size) and ensemble.labels.dtype == torch.uint8
    assert set(ensemble.seconds) == {"encode", "sample"}


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_same_seed_same_masks_for_any_batch_size(size: tuple[int, ...]) -> None:
    network, image = tiny_segmenter(len(size)), torch.randn(1, *size)

    def run(batch: int, seed: int = 0, case: str = "case") -> torch.Tensor:
        inferer = EnsembleInferer(
            [32] * len(size),
            members=6,
            steps=3,
            sampler_options={"eta": 1.0},
            member_batch=batch,
            seed=seed,
        )
        return inferer.ensemble(image, network, case).labels

    assert torch.equal(run(6), run(1)) and torch.equal(run(6), run(4))
    assert not torch.equal(run(6), run(6, seed=1)) and not torch.equal(run(6), run(6, case="b"))


def test_an_image_larger_than_the_window_is_covered_and_its_members_agree_with_the_mean() -> None:
    network = tiny_segmenter(2)
    inferer = EnsembleInferer([16, 16], members=8, steps=2, overlap=0.5)
    ensemble = inferer.ensemble(torch.randn(1, 40, 27), network, "case")
    torch.testing.assert_close(ensemble.mean.sum(0), torch.ones(40, 27))
    votes = torch.stack([(ensemble.labels == k).float().mean(0) for k in range(3)])
    agreement = (votes.argmax(0) == ensemble.mean.argmax(0)).float().mean()
    assert float(agreement) > 0.8


def test_one_window_of_the_image_is_what_the_window_alone_would_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where windows do not overlap, blending changes nothing."""
    monkeypatch.setattr(noise, "LARGEST_BLOCK", 0)  # the noise of a small image depends on its size
    network, image = tiny_segmenter(2), torch.randn(1, 32, 16)
    inferer = EnsembleInferer([16, 16], members=4, steps=2, overlap=0.0)
    whole = inferer.ensemble(image, network, "case")
    first = inferer.ensemble(image[:, :16], network, "case")
    torch.testing.assert_close(whole.mean[:, :16], first.mean)
    torch.testing.assert_close(whole.variance[:, :16], first.variance)
    assert torch.equal(whole.labels[:, :16], first.labels)


def test_mirroring_an_image_mirrors_the_mirrored_members() -> None:
    """With one member on each side, the image and its mirror image give mirrored means."""
    network, image = tiny_segmenter(2), torch.randn(1, 12, 12)
    inferer = EnsembleInferer([32, 32], members=2, steps=1, mirror_axes=(0,))
    mean = inferer.ensemble(image, network, "case").mean
    # At one step from pure noise the members differ by their noise; without it they are equal.
    network.denoiser.fine_head.weight.data.zero_()  # type: ignore[operator]
    plain = inferer.ensemble(image, network, "case").mean
    mirrored = inferer.ensemble(image.flip(1), network, "case").mean.flip(1)
    torch.testing.assert_close(plain, mirrored)
    assert not torch.allclose(mean, plain)


def test_a_2d_network_takes_a_volume_slice_by_slice() -> None:
    network, volume = tiny_segmenter(2), torch.randn(1, 12, 10, 3)
    inferer = EnsembleInferer([32, 32], members=4, steps=2)
    ensemble = inferer.ensemble(volume, network, "case")
    assert ensemble.mean.shape == (3, 12, 10, 3) and ensemble.labels.shape == (4, 12, 10, 3)
    alone = inferer.ensemble(volume[..., 1], network, "case")
    torch.testing.assert_close(ensemble.mean[..., 1], alone.mean)


def test_as_monais_inferer_it_gives_the_mean_of_each_image_of_a_batch() -> None:
    network = tiny_segmenter(2)
    inferer = EnsembleInferer([32, 32], members=4, steps=2)
    mean = inferer(torch.randn(2, 1, 12, 10), network)
    torch.testing.assert_close(mean.sum(1), torch.ones(2, 12, 10))


def test_the_noise_scale_says_how_much_members_differ() -> None:
    network, image = tiny_segmenter(2), torch.randn(1, 12, 10)
    spread = [
        float(
            EnsembleInferer([32, 32], 8, 1, noise_scale=s)
            .ensemble(image, network, "a")
            .variance.sum()
        )
        for s in (0.0, 0.5, 1.0)
    ]
    assert spread[0] == pytest.approx(0.0, abs=1e-6) and spread[0] < spread[1] < spread[2]
    with pytest.raises(ValueError, match="noise_scale must be 0 or more"):
        EnsembleInferer([8, 8], noise_scale=-1.0)


def test_no_members_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        EnsembleInferer([8, 8], members=0)


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_members_of_a_warm_start_begin_near_the_anchor(size: tuple[int, ...]) -> None:
    """The less noise, the nearer is the first state to the anchor's mask of its own image."""
    network, image, found = tiny_segmenter(len(size)), torch.randn(1, *size), []
    x_0 = network.x_0

    def watched(x_t: torch.Tensor, t: torch.Tensor, condition: Conditioned, *rest: Any) -> Any:
        found.append(float((x_t - anchor_mask(condition.coarse, x_t)).abs().mean()))
        return x_0(x_t, t, condition, *rest)

    network.x_0 = watched  # type: ignore[method-assign, assignment]

    def distance(warm_start: float) -> float:
        found.clear()
        EnsembleInferer(
            [32] * len(size), members=4, steps=1, warm_start=warm_start, mirror_axes=(0,)
        ).ensemble(image, network, "case")
        return max(found)

    assert distance(0.02) < distance(0.3) < distance(1.0)


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_the_anchor_takes_its_share_of_the_mean_alone(size: tuple[int, ...]) -> None:
    network, image = tiny_segmenter(len(size)), torch.randn(1, *size)
    plain, mixed = (
        EnsembleInferer([32] * len(size), members=3, anchor_share=share).ensemble(
            image, network, ""
        )
        for share in (0.0, 0.25)
    )
    torch.testing.assert_close(mixed.mean, 0.75 * plain.mean + 0.25 * plain.anchor)
    assert torch.equal(mixed.variance, plain.variance) and torch.equal(mixed.labels, plain.labels)
    with pytest.raises(ValueError, match="anchor_share must be in"):
        EnsembleInferer([8, 8], anchor_share=1.5)


@pytest.mark.parametrize("warm_start", [0.0, 1.5])
def test_warm_starts_outside_the_process_are_refused(warm_start: float) -> None:
    with pytest.raises(ValueError, match="warm_start must be in"):
        EnsembleInferer([8, 8], warm_start=warm_start)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_a_categorical_process_is_sampled_from_the_same_noise_whatever_the_batch(
    sampler: str,
) -> None:
    network, image = tiny_segmenter(2, process=CategoricalProcess()), torch.randn(1, 13, 10)

    def run(batch: int) -> torch.Tensor:
        inferer = EnsembleInferer([32, 32], members=4, steps=3, sampler=sampler, member_batch=batch)
        return inferer.ensemble(image, network, "case").labels

    if sampler == "ddim":
        with pytest.raises(ValueError, match=r"Choose one of \['ancestral'\]"):
            run(4)
    else:
        assert torch.equal(run(4), run(1))


def test_the_fusion_rule_decides_what_monais_engines_get() -> None:
    network, image = tiny_segmenter(2), torch.randn(1, 12, 10)
    fused = {}
    for rule in ("mean", "majority", "staple", "step_uncertainty"):
        inferer = EnsembleInferer([32, 32], members=5, steps=3, fusion=rule)
        fused[rule] = inferer(image.unsqueeze(0), network)[0]
        ensemble = inferer.ensemble(image, network, "0")
    votes = torch.stack([(ensemble.labels == k).float().mean(0) for k in range(3)])
    torch.testing.assert_close(fused["majority"], votes)
    torch.testing.assert_close(fused["mean"], ensemble.mean)
    assert len({tuple(f.flatten().tolist()) for f in fused.values()}) == 4


def test_a_volume_of_slices_is_fused_like_its_slices() -> None:
    network, volume = tiny_segmenter(2), torch.randn(1, 12, 10, 3)
    inferer = EnsembleInferer([32, 32], members=4, steps=2, fusion="step_uncertainty")
    whole = inferer.ensemble(volume, network, "case").by_steps
    alone = inferer.ensemble(volume[..., 1], network, "case").by_steps
    assert whole is not None and alone is not None
    torch.testing.assert_close(whole[..., 1], alone)


def test_an_unknown_fusion_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of .*'staple'.*Got 'median'"):
        EnsembleInferer([8, 8], fusion="median")  # type: ignore[arg-type]
