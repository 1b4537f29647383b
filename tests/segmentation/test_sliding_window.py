"""Ensembles of images smaller and larger than the window."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.inferers import sliding_window_inference

from medsegdiff.core.errors import UsageError
from medsegdiff.core.storage import Storage
from medsegdiff.diffusion.categorical import CategoricalProcess
from medsegdiff.diffusion.prediction import anchor_mask
from medsegdiff.models.fold_ensemble import FoldEnsemble
from medsegdiff.networks.denoiser import Conditioned
from medsegdiff.segmentation import noise, sliding_window
from medsegdiff.segmentation.sliding_window import EnsembleInferer
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
    assert ensemble.anchor is not None
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
            EnsembleInferer([32, 32], members=8, steps=1, noise_scale=s)
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
    assert plain.anchor is not None
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
        EnsembleInferer([8, 8], fusion="median")


@pytest.mark.parametrize("size", [(20, 17), (12, 17, 11)], ids=["2d", "3d"])
def test_large_statistics_are_those_of_monais_sliding_windows(size: tuple[int, ...]) -> None:
    network, image, dims = tiny_segmenter(len(size)), torch.randn(1, *size), len(size)
    inferer = EnsembleInferer([8] * dims, members=3, steps=1, mirror_axes=(0,))
    blocks = noise.blocks_of(network.state_size(size))

    def predict(window: torch.Tensor, where: Any) -> dict[str, torch.Tensor]:
        place, seconds = tuple(where[0][2:]), {"encode": 0.0, "sample": 0.0}
        maps = inferer._window(window, network, "case", place, blocks, seconds)[0]
        return {name: values[None] for name, values in maps.items()}

    with torch.no_grad():
        expected = sliding_window_inference(
            image[None], [8] * dims, 1, predict, 0.25, mode="gaussian", with_coord=True
        )
    found = inferer.ensemble(image, network, "case")
    for name, values in expected.items():
        torch.testing.assert_close(getattr(found, name), torch.as_tensor(values[0]))


@pytest.mark.parametrize("dims", [2, 3])
def test_where_the_arrays_lie_and_the_batch_change_nothing(dims: int, tmp_path: Path) -> None:
    """A 2D network takes the volume slice by slice, a 3D one window by window."""
    network, image = tiny_segmenter(dims), torch.randn(1, 13, 10, 11)
    plain = EnsembleInferer([8] * dims, members=3, steps=2)
    singly = EnsembleInferer([8] * dims, members=3, steps=2, member_batch=1)
    expected = plain.ensemble(image, network, "case")
    found = singly.ensemble(image, network, "case", Storage(tmp_path, in_memory=0))
    for name in ("mean", "variance", "anchor"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))
    assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("dims", [2, 3])
def test_empty_windows_are_background_and_the_others_as_they_were(dims: int) -> None:
    network, image = tiny_segmenter(dims), torch.randn(1, 32, 8, 8)
    image[:, 14:] = image.min()
    options: dict[str, Any] = {"members": 3, "steps": 1, "overlap": 0.25}
    found = EnsembleInferer([8] * dims, **options).ensemble(image, network, "case")
    all_run = EnsembleInferer([8] * dims, **options, empty_up_to=None).ensemble(image, network, "")
    many = 8 if dims == 2 else 1  # slices
    # Windows begin at 0, 6, 12, 18 and 24.
    assert found.windows == {"run": 3 * many, "skipped": 2 * many}
    assert all_run.windows == {"run": 5 * many, "skipped": 0}
    again = EnsembleInferer([8] * dims, **options, empty_up_to=None)
    expected = again.ensemble(image, network, "case")
    for name in ("mean", "variance", "anchor", "labels"):
        ours, other = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(ours[:, :18], other[:, :18])
        assert not torch.equal(ours[:, 20:], other[:, 20:]) or name == "labels"
    beyond = slice(20, None)
    for maps in (found.mean, found.anchor):
        assert maps is not None
        assert (maps[0, beyond] == 1).all() and (maps[1:, beyond] == 0).all()
    assert not found.variance[:, beyond].any() and not found.labels[:, beyond].any()


def test_a_window_with_anything_in_it_is_run() -> None:
    network, image = tiny_segmenter(2), torch.zeros(2, 16, 8)

    def encode(window: torch.Tensor) -> Any:
        raise RuntimeError("this window is run")

    network.encode = encode  # type: ignore[method-assign, assignment]
    inferer = EnsembleInferer([8, 8], members=2, overlap=0.0)
    assert inferer.ensemble(image, network, "").windows == {"run": 0, "skipped": 2}
    image[1, 12, 3] = 1e-3  # in one channel alone
    with pytest.raises(RuntimeError, match="this window is run"):
        inferer.ensemble(image, network, "")


def test_a_level_says_what_is_empty() -> None:
    network, image = tiny_segmenter(2), torch.rand(1, 8, 24)
    image[..., 16:] += 1.0

    def windows(empty_up_to: Any) -> dict[str, int]:
        inferer = EnsembleInferer([8, 8], members=2, steps=1, overlap=0.0, empty_up_to=empty_up_to)
        return inferer.ensemble(image, network, "").windows

    assert windows(1.0) == {"run": 1, "skipped": 2}
    assert windows(0.0) == windows("lowest") == windows(None) == {"run": 3, "skipped": 0}
    for wrong in ("highest", False):
        with pytest.raises(ValueError, match="empty_up_to must be a number, 'lowest' or None"):
            windows(wrong)


def test_an_image_of_one_window_is_run_whatever_it_holds() -> None:
    inferer = EnsembleInferer([8, 8], members=2, steps=1)
    found = inferer.ensemble(torch.zeros(1, 8, 8), tiny_segmenter(2), "")
    assert found.windows == {"run": 1, "skipped": 0}


def test_progress_is_told_window_by_window() -> None:
    told: list[tuple[int, int]] = []
    inferer = EnsembleInferer([8, 8], members=2, steps=1, overlap=0.0)
    inferer.ensemble(
        torch.rand(1, 16, 8, 2), tiny_segmenter(2), "", progress=lambda *at: told.append(at)
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


class Recorded(torch.nn.Module):
    """A network of two classes whose anchor is the image, and whose members are their noise."""

    num_classes, stride = 2, 1

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(gain))
        self.encoded: list[torch.Tensor] = []
        self.drawn: list[dict[str, Any]] = []

    def state_size(self, size: Any) -> list[int]:
        return list(size)

    def encode(self, window: torch.Tensor) -> Any:
        self.encoded.append(window)
        return SimpleNamespace(
            anchor=torch.cat([torch.zeros_like(window), self.weight * window], 1)
        )

    def sample(self, condition: Any, x_T: torch.Tensor, noise: Any, **options: Any) -> torch.Tensor:
        self.drawn.append({"x_T": x_T, **options})
        p = x_T.softmax(dim=1)
        if options["watch"] is not None:
            options["watch"](0, p)
        return p


def test_members_are_shared_out_over_mirror_images_in_batches() -> None:
    network: Any = Recorded()
    image = torch.rand(1, 6, 5)
    inferer = EnsembleInferer(
        [8, 8],
        members=5,
        steps=3,
        warm_start=0.5,
        mirror_axes=(0,),
        member_batch=2,
        fusion="step_uncertainty",
    )
    found = inferer.ensemble(image, network, "case")
    assert inferer.mirrors == [(), (0,)]
    for seen, expected in zip(network.encoded, (image, image.flip(1)), strict=True):
        assert torch.equal(seen[0], expected)
    # members 0, 2, 4 of the image as it is, 1 and 3 of its mirror image, two at a time
    assert [len(one["x_T"]) for one in network.drawn] == [2, 1, 2]
    options = ("sampler", "steps", "start")
    for one in network.drawn:
        assert [one[name] for name in options] == [inferer.sampler, 3, 0.5]
    members = []
    for m in range(5):
        mirrored = (0,) if m % 2 else ()
        own = noise.MemberNoise(
            0, "case", [m], (slice(0, 6), slice(0, 5)), (6, 5), [6, 5], 1, mirrored
        )
        p = own.start(2).softmax(dim=1)
        members.append(p.flip(2) if m % 2 else p)
    drawn = torch.cat(members)
    torch.testing.assert_close(found.mean, drawn.mean(dim=0))
    torch.testing.assert_close(found.variance, drawn.var(dim=0, correction=0))
    assert torch.equal(found.labels, drawn.argmax(dim=1).to(torch.uint8))
    torch.testing.assert_close(found.by_steps, drawn.mean(dim=0))
    logits = torch.cat([torch.zeros_like(image), image])
    torch.testing.assert_close(found.anchor, logits.softmax(dim=0))
    assert set(found.seconds) == {"encode", "sample"} and min(found.seconds.values()) > 0.0
    assert sum(found.seconds.values()) < 60.0 and found.windows == {"run": 1, "skipped": 0}


def test_fewer_members_than_mirror_images_use_the_first() -> None:
    network: Any = Recorded()
    inferer = EnsembleInferer([8, 8], members=2, steps=1, mirror_axes=(0, 1))
    assert inferer.mirrors == [(), (0,), (1,), (0, 1)]
    inferer.ensemble(torch.rand(1, 6, 5), network, "")
    assert sum(len(image) for image in network.encoded) == 2
    assert all(one["watch"] is None for one in network.drawn)


@pytest.mark.parametrize("members", [8, 6, 20])
@pytest.mark.parametrize("networks", [1, 2])
def test_mirror_images_of_small_windows_are_computed_together(
    members: int, networks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which changes nothing but the number of calls: all at once, if members divide and are few."""
    torch.manual_seed(1)
    image, single = torch.randn(1, 12, 10), tiny_segmenter(2)
    network = FoldEnsemble(single, networks) if networks > 1 else single
    inferer = EnsembleInferer([16, 16], members=members, mirror_axes=(0, 1))
    calls = []
    encode = type(single).encode

    def counted(self: Any, image: torch.Tensor) -> Any:
        calls.append(len(image))
        return encode(self, image)

    monkeypatch.setattr(type(single), "encode", counted)
    found = inferer.ensemble(image, network, "a")
    passes = min(4 * networks, members)
    together = members % passes == 0 and members <= 16 * networks
    assert calls == ([passes // networks] * networks if together else [1] * passes)
    calls.clear()
    monkeypatch.setattr(sliding_window, "SMALL", 0)
    alone = inferer.ensemble(image, network, "a")
    assert set(calls) == {1}
    torch.testing.assert_close(found.mean, alone.mean)
    torch.testing.assert_close(found.anchor, alone.anchor)
    torch.testing.assert_close(found.variance, alone.variance)
    assert (found.labels != alone.labels).float().mean() < 0.001


def test_an_empty_window_is_certain_of_background() -> None:
    network: Any = Recorded()
    image = torch.zeros(1, 16, 8)
    image[:, :8] = 1.0
    for rule in ("mean", "step_uncertainty"):
        inferer = EnsembleInferer([8, 8], members=3, steps=1, overlap=0.0, fusion=rule)
        found = inferer.ensemble(image, network, "")
        assert found.windows == {"run": 1, "skipped": 1}
        maps = [found.mean, found.anchor, *([] if rule == "mean" else [found.by_steps])]
        for one in maps:
            assert one is not None
            assert (one[0, 8:] == 1.0).all() and not one[1, 8:].any()
        assert not found.variance[:, 8:].any() and not found.labels[:, 8:].any()
        assert found.labels.shape == (3, 16, 8) and (found.by_steps is None) == (rule == "mean")


@pytest.mark.parametrize(("nearly", "skipped"), [(0.5e-6, 1), (2e-6, 0)])
def test_the_lowest_value_may_vary_by_rounding(nearly: float, skipped: int) -> None:
    network: Any = Recorded()
    image = torch.zeros(2, 16, 8)
    image[0, :8], image[1, :8] = 1.0, 4.0
    image[0, 8] = nearly
    inferer = EnsembleInferer([8, 8], members=1, steps=1, overlap=0.0)
    network.encode = lambda window: SimpleNamespace(anchor=window)
    assert inferer.ensemble(image, network, "").windows["skipped"] == skipped


def test_too_many_steps_are_told_with_the_remedy() -> None:
    network = tiny_segmenter(2)  # of 100 time steps
    EnsembleInferer([8, 8], steps=100).check(network)
    with pytest.raises(UsageError) as told:
        EnsembleInferer([8, 8], steps=101).check(network)
    assert str(told.value) == (
        "steps 101: steps must be between 1 and 100, the time steps of the process. Got 101. "
        "Choose fewer, or leave the option out"
    )
    with pytest.raises(UsageError, match=r"steps 60: .* below start 0\.5"):
        EnsembleInferer([8, 8], steps=60, warm_start=0.5).check(network)


def test_the_settings_of_the_record_are_those_of_sampling() -> None:
    inferer = EnsembleInferer([8, 8], members=3, steps=2, seed=7, fusion="majority")
    assert inferer.fusion == "majority" and inferer.settings == inferer.sampling.to_record()
    assert (inferer.settings["members"], inferer.settings["seed"]) == (3, 7)
    assert (inferer.window, inferer.overlap, inferer.member_batch) == ((8, 8), 0.25, 16)


def test_each_image_of_a_batch_has_noise_of_its_own() -> None:
    network: Any = Recorded()
    inferer = EnsembleInferer([8, 8], members=2, steps=1)
    image = torch.rand(1, 1, 6, 5).expand(2, -1, -1, -1)
    first, second = inferer.ensembles(image, network)
    assert not torch.equal(first.mean, second.mean)
    assert torch.equal(second.mean, inferer.ensemble(image[1], network, "1").mean)
    assert torch.equal(inferer(image, network), torch.stack([first.mean, second.mean]))
