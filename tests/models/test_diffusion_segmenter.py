"""The joint of process, target and networks."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from medsegdiff.core.types import Target
from medsegdiff.diffusion.categorical import CategoricalProcess
from medsegdiff.diffusion.flow import RectifiedFlow
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.grid import TimeGrid
from medsegdiff.diffusion.prediction import anchor_mask
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.samplers import (
    SAMPLERS,
    Denoise,
    ddim,
    make_sampler,
    suitable_samplers,
)
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter, SegmenterOutput
from medsegdiff.networks.denoiser import Denoiser
from tests.tiny import tiny_segmenter

SIZES = [(13, 10), (8, 9, 7)]
PROCESSES: dict[str, Process] = {
    "gaussian": GaussianProcess(n_timesteps=100),
    "flow": RectifiedFlow(100),
    "anchored": RectifiedFlow(100, base="anchor", base_scale=0.5),
    "categorical": CategoricalProcess(n_timesteps=100),
}


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_called_with_an_image_alone_it_gives_the_anchor(size: tuple[int, ...]) -> None:
    network = tiny_segmenter(len(size))
    image = torch.randn(2, 1, *size)
    torch.testing.assert_close(network(image), network.encode(image).anchor)


@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_training_output_and_its_gradients(size: tuple[int, ...], target: str) -> None:
    network = tiny_segmenter(len(size), target)  # type: ignore[arg-type]
    x_0 = network.to_state(torch.randn(4, 3, *size).sign())
    t = torch.tensor([0, 30, 60, 99])
    output = network(torch.randn(2, 1, *size), x_0=x_0, eps=torch.randn_like(x_0), t=t)
    assert isinstance(output, SegmenterOutput)
    assert output.anchor.shape == (2, 3, *size)
    assert output.prediction.shape == x_0.shape and output.logits.shape == (4, 3, *size)
    (output.anchor.sum() + output.prediction.square().sum() + output.logits[:3].sum()).backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
def test_sampling_and_training_see_the_same_mask(target: str) -> None:
    """One evaluation at step t inside the sampler is what the training pass computes there."""
    network = tiny_segmenter(2, target)  # type: ignore[arg-type]
    image, t = torch.randn(1, 1, 12, 12), torch.tensor([40, 40])
    x_0, eps = torch.randn(2, 3, 6, 6).sign(), torch.randn(2, 3, 6, 6)
    x_t, condition = network.process.add_noise(x_0, eps, t), network.encode(image)
    mask, features = network.x_0(x_t, torch.tensor([40]), condition)
    trained = network(image, x_0=x_0, eps=eps, t=t)
    if target == "x_0":
        torch.testing.assert_close(mask, trained.prediction, rtol=1e-3, atol=1e-5)
    fine = network.denoiser.refine(features, condition)
    torch.testing.assert_close(fine, trained.logits, rtol=1e-3, atol=1e-4)


def test_states_are_the_masks_mean_over_their_voxels() -> None:
    network, mask = tiny_segmenter(2), torch.randn(2, 3, 10, 13)
    state = network.to_state(mask)
    assert list(state.shape[2:]) == network.state_size((10, 13)) == [6, 8]
    torch.testing.assert_close(state[..., 1, 3], mask[..., 2:4, 6:8].mean((2, 3)))
    torch.testing.assert_close(state[..., 0, -1], mask[..., 0:2, -1].mean(2))  # the border goes on


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_samples_are_probabilities_and_differ(
    size: tuple[int, ...], name: str, process: Process
) -> None:
    """Whatever process and sampler, from noise or from the anchor; or the sampler is refused."""
    network = tiny_segmenter(len(size), process=process)
    x_T = torch.randn(6, 3, *network.state_size(size))
    for start in (1.0, 0.5):
        run = partial(
            network.sample,
            x_T=x_T,
            noise=torch.randn_like,
            sampler=make_sampler(name),
            steps=4,
            start=start,
        )
        with torch.no_grad():
            condition = network.encode(torch.randn(2, 1, *size))
            if name not in suitable_samplers(process.grid(1).states):
                with pytest.raises(ValueError, match=f"{name}.*needs a process of"):
                    run(condition)
                continue
            p = run(condition)
        assert p.shape == (6, 3, *size) and p.min() >= 0 and p.max() <= 1
        torch.testing.assert_close(p.sum(1), torch.ones_like(p[:, 0]))
        assert not torch.allclose(p[0], p[1], atol=1e-3)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_a_warm_start_is_the_anchors_mask_noised(size: tuple[int, ...], process: Process) -> None:
    """At a low start the first state is next to the anchor's mask of its own image."""
    network, first = tiny_segmenter(len(size), process=process), []
    condition = network.encode(100 * torch.randn(2, 1, *size))
    condition = condition._replace(coarse=condition.coarse.sign() * 50)
    x_T = torch.randn(6, 3, *network.state_size(size))

    def stop(denoise: Denoise, x_T: torch.Tensor, grid: TimeGrid, noise: object) -> torch.Tensor:
        first.append((x_T, grid.timesteps))
        return denoise(x_T, grid.timesteps[0])

    network.fine = lambda features, condition: features  # type: ignore[method-assign]
    network.sample(condition, x_T, torch.randn_like, sampler=stop, steps=1, start=0.01)
    network.sample(condition, x_T, torch.randn_like, sampler=stop, steps=1)
    assert torch.equal(first[1][0], process.start(x_T))  # a cold one knows nothing of it
    x_t, timesteps = first[0]
    mask = anchor_mask(condition.coarse, x_T)
    assert timesteps == (0,)
    torch.testing.assert_close(x_t, process.add_noise(mask, x_T, torch.tensor([0])))
    sure = mask.abs().amin(1, keepdim=True).expand_as(mask) > 0.99
    assert float((x_t - mask)[sure].abs().mean()) < 0.1


def test_the_network_sees_the_anchors_mask_in_a_flow_from_it() -> None:
    plain, anchored = (tiny_segmenter(2, process=PROCESSES[n]) for n in ("flow", "anchored"))
    seen: list[torch.Tensor] = []
    for network in (plain, anchored):
        network.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        condition = network.encode(torch.ones(1, 1, 12, 12))
        network.x_0(torch.zeros(2, 3, 6, 6), torch.tensor([99]), condition)
    assert not seen[0].any()
    torch.testing.assert_close(seen[1], anchor_mask(condition.coarse, seen[1]))


def test_the_image_is_encoded_once_however_many_masks_are_drawn() -> None:
    network = tiny_segmenter(2)
    calls = []
    network.encoder.register_forward_hook(lambda *_: calls.append(1))
    condition = network.encode(torch.randn(1, 1, 12, 12))
    network.sample(condition, torch.randn(8, 3, 6, 6), torch.randn_like, sampler=ddim, steps=5)
    assert len(calls) == 1


def test_a_sampler_that_returns_anything_but_the_last_estimate_is_refused() -> None:
    network = tiny_segmenter(2)
    condition, x_T = network.encode(torch.randn(1, 1, 12, 12)), torch.randn(2, 3, 6, 6)

    def averaging(denoise: Denoise, x_T: torch.Tensor, grid: TimeGrid, _: object) -> torch.Tensor:
        estimates = [denoise(x_T, t) for t in grid.timesteps]
        return torch.stack(estimates).mean(dim=0)

    def idle(denoise: Denoise, x_T: torch.Tensor, grid: TimeGrid, _: object) -> torch.Tensor:
        return x_T

    for sampler in (averaging, idle):
        with pytest.raises(ValueError, match="must return the last estimate"):
            network.sample(condition, x_T, torch.randn_like, sampler=sampler, steps=3)


def test_an_anchor_can_only_be_added_to_logits() -> None:
    network = tiny_segmenter(2)
    assert isinstance(network.denoiser, Denoiser)
    with pytest.raises(ValueError, match="add_anchor needs target 'x_0'"):
        DiffusionSegmenter(network.encoder, network.denoiser, network.process, "eps")


def test_a_process_without_the_target_is_refused() -> None:
    with pytest.raises(ValueError, match=r"target must be one of .'x_0'"):
        tiny_segmenter(2, "eps", process=CategoricalProcess())


def training_pass(network: DiffusionSegmenter, size: tuple[int, ...]) -> list[torch.Tensor]:
    """Output and gradients of a training step; the same image, masks and noise each time."""
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(2, 1, *size, generator=generator)
    x_0 = network.to_state(torch.randn(4, 3, *size, generator=generator).sign())
    eps, t = torch.randn(x_0.shape, generator=generator), torch.tensor([0, 30, 60, 99])
    output = network.train()(image, x_0=x_0, eps=eps, t=t)
    assert isinstance(output, SegmenterOutput)
    (output.logits.square().sum() + output.prediction.sum()).backward()
    return [output.logits, *(p.grad for p in network.parameters() if p.grad is not None)]


def count_calls(network: DiffusionSegmenter) -> list[int]:
    calls: list[int] = []
    network.denoiser.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_self_conditioning_and_recycling_cost_nothing_when_off(size: tuple[int, ...]) -> None:
    """One call, no random number, and weights of the shapes that they always had."""
    network = tiny_segmenter(len(size))
    calls, state = count_calls(network), torch.get_rng_state()
    training_pass(network, size)
    assert len(calls) == 1 and torch.equal(torch.get_rng_state(), state)
    assert network.denoiser.state_dict()["stem.weight"].shape[1] == 3
    noise = torch.randn_like
    condition = network.encode(torch.randn(1, 1, *size))
    x_T = torch.randn(2, 3, *network.state_size(size))
    network.sample(condition, x_T, noise, sampler=ddim, steps=3)
    assert len(calls) == 4


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_recycling_noises_the_models_own_mask_and_stops_its_gradient(
    size: tuple[int, ...], process: Process
) -> None:
    network = tiny_segmenter(len(size), process=process, recycling=True)
    calls = count_calls(network)
    torch.manual_seed(5)
    found = training_pass(network, size)
    assert len(calls) == 2

    plain = tiny_segmenter(len(size), process=process)
    add_noise = process.add_noise

    def noise_a_fixed_mask(x_0: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return add_noise(mask, eps, t)

    generator = torch.Generator().manual_seed(3)
    image = torch.randn(2, 1, *size, generator=generator)
    torch.manual_seed(5)
    with torch.no_grad():
        x_T = process.start(torch.randn(4, 3, *plain.state_size(size)))
        mask = plain.x_0(x_T, torch.tensor([99]), plain.encode(image))[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "add_noise", noise_a_fixed_mask)
        expected = training_pass(plain, size)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
def test_self_conditioning_shows_the_denoiser_its_first_estimate(
    size: tuple[int, ...], target: str
) -> None:
    network = tiny_segmenter(len(size), target, self_conditioning=1.0)  # type: ignore[arg-type]
    seen: list[torch.Tensor] = []
    network.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    training_pass(network, size)
    first, second = seen
    assert torch.equal(first[:, :3], second[:, :3]) and not first[:, 3:].any()
    assert second[:, 3:].abs().max() <= 1 and second[:, 3:].any()
    assert not second.requires_grad
    assert all(p.grad is not None for p in network.denoiser.parameters())


def test_self_conditioned_sampling_hands_each_estimate_to_the_next_step() -> None:
    network = tiny_segmenter(2, self_conditioning=0.5)
    seen: list[torch.Tensor] = []
    network.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args[0][:, 3:]))
    found: list[torch.Tensor] = []

    def watching(denoise: Denoise, x_T: torch.Tensor, *rest: object) -> torch.Tensor:
        def keep(x_t: torch.Tensor, t: int) -> torch.Tensor:
            found.append(denoise(x_t, t))
            return found[-1]

        return ddim(keep, x_T, *rest)

    condition, x_T = network.encode(torch.randn(1, 1, 12, 12)), torch.randn(2, 3, 6, 6)
    network.sample(condition, x_T, torch.randn_like, sampler=watching, steps=4)
    assert not seen[0].any()
    for before, given in zip(found, seen[1:], strict=False):
        assert torch.equal(before, given)


def test_self_conditioning_comes_with_its_probability() -> None:
    network = tiny_segmenter(2, self_conditioning=0.3)
    calls = count_calls(network)
    for _ in range(200):
        training_pass(network, (8, 8))
    assert 200 * 1.15 < len(calls) < 200 * 1.45


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"self_conditioning": 0.5}, "need a denoiser with"),
        ({"recycling": True}, "recycling needs target"),
    ],
)
def test_switches_that_do_not_go_together_are_refused(arguments: dict, word: str) -> None:
    network = tiny_segmenter(2, "eps")
    with pytest.raises(ValueError, match=word):
        DiffusionSegmenter(network.encoder, network.denoiser, network.process, "eps", **arguments)


@pytest.mark.parametrize("size", SIZES, ids=["2d", "3d"])
def test_guesses_at_one_noisy_mask_differ_by_noise_of_their_own(size: tuple[int, ...]) -> None:
    network = tiny_segmenter(len(size), samples_per_target=3)
    seen: list[torch.Tensor] = []
    network.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    x_0 = network.to_state(torch.randn(4, 3, *size).sign())
    t = torch.tensor([0, 30, 60, 99])
    output = network(torch.randn(2, 1, *size), x_0=x_0, eps=torch.randn_like(x_0), t=t)
    assert output.prediction.shape[0] == output.logits.shape[0] == 12
    x_t, own = seen[0].unflatten(0, (4, 3)).chunk(2, dim=2)
    assert torch.equal(x_t[:, 0], x_t[:, 1]) and not torch.equal(own[:, 0], own[:, 1])
    assert not torch.allclose(output.logits[0], output.logits[1], atol=1e-3)


def test_one_step_gives_members_that_differ_even_from_the_same_start() -> None:
    network = tiny_segmenter(2, samples_per_target=2)
    condition, x_T = network.encode(torch.randn(1, 1, 12, 12)), torch.zeros(2, 3, 6, 6)
    p = network.sample(condition, x_T, torch.randn_like, sampler=ddim, steps=1)
    assert not torch.allclose(p[0], p[1], atol=1e-3)


def test_several_samples_need_masks_as_target() -> None:
    with pytest.raises(ValueError, match="samples_per_target above 1 needs target 'x_0'"):
        tiny_segmenter(2, "v", samples_per_target=2)


def test_watching_sees_every_step_and_the_last_is_the_result() -> None:
    network, seen = tiny_segmenter(2), []
    condition, x_T = network.encode(torch.randn(1, 1, 12, 12)), torch.randn(2, 3, 6, 6)
    found = network.sample(
        condition,
        x_T,
        torch.randn_like,
        sampler=ddim,
        steps=3,
        watch=lambda call, masks: seen.append((call, masks)),
    )
    assert [call for call, _ in seen] == [0, 1, 2]
    assert torch.equal(seen[-1][1], found) and not torch.equal(seen[0][1], found)


def test_small_maps_are_trained_in_float32_on_a_cpu() -> None:
    """Torch 2.13 gives gradients of stray memory there; larger ones are trained in bfloat16."""
    network = tiny_segmenter(2).train()
    network.precision = "bfloat16"
    for side, expected in ((8, torch.float32), (16, torch.bfloat16)):
        assert network.encode(torch.randn(1, 1, side, side)).anchor.dtype == expected
    assert network.eval().encode(torch.randn(1, 1, 8, 8)).anchor.dtype == torch.bfloat16


def test_bfloat16_changes_the_last_digits_alone() -> None:
    """In whatever precision the networks compute, what comes out is float32."""
    network, image = tiny_segmenter(2), torch.randn(1, 1, 12, 12)
    x_T, results = torch.randn(4, 3, 6, 6), []
    for precision in ("float32", "bfloat16"):
        network.precision = precision
        with torch.no_grad():
            condition = network.encode(image)
            p = network.sample(condition, x_T, torch.randn_like, sampler=ddim, steps=2)
        assert p.dtype == torch.float32 and network(image).dtype == torch.float32
        assert (condition.anchor.dtype == torch.bfloat16) == (precision == "bfloat16")
        results.append(p)
    assert not torch.equal(*results)
    torch.testing.assert_close(*results, rtol=0.0, atol=0.1)


class _Watched(TorchDispatchMode):
    """Names of the operations that make a tensor from the host's values, or read one back."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "lift_fresh", "_to_copy", "nonzero"):
            there = (kwargs or {}).get("device")
            self.seen += [name] * (name != "_to_copy" or there not in (None, args[0].device))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("target", ["x_0", "eps", "v"])
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_no_step_of_sampling_waits_for_the_device(process: Process, target: Target) -> None:
    if target not in process.targets:
        pytest.skip("not a target of this process")
    network = tiny_segmenter(2, target, process=process)
    condition = network.encode(torch.randn(1, 1, 12, 12))
    for name in suitable_samplers(process.grid(3).states):
        watched = _Watched()

        def sampler(*arguments: Any, name: str = name, watched: _Watched = watched) -> Tensor:
            with watched:
                return make_sampler(name)(*arguments)

        with torch.no_grad():
            network.sample(
                condition, torch.randn(2, 3, 6, 6), torch.randn_like, sampler=sampler, steps=3
            )
        assert watched.seen == [], name
    with watched:  # it would be noticed
        float(torch.tensor(1.0))
    assert watched.seen == ["lift_fresh", "_local_scalar_dense"]
