"""What all processes have in common, and how time steps are drawn."""

import pytest
import torch

from medsegdiff.diffusion.categorical import CategoricalProcess
from medsegdiff.diffusion.flow import RectifiedFlow
from medsegdiff.diffusion.gaussian import GaussianProcess
from medsegdiff.diffusion.process import Process, low_discrepancy_timesteps

PROCESSES: dict[str, Process] = {
    "gaussian": GaussianProcess("cosine", 100),
    "flow": RectifiedFlow(100),
    "anchored": RectifiedFlow(100, base="anchor", base_scale=0.5),
    "categorical": CategoricalProcess("cosine", 100),
}
SHAPES = [(2, 3, 6, 5), (2, 3, 4, 5, 3)]

every_process = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])


def mask_and_noise(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 50 * torch.randn(shape, generator=generator, dtype=torch.float64)
    eps = torch.randn(shape, generator=generator, dtype=torch.float64)
    return 2 * logits.softmax(1) - 1, eps


@every_process
@every_shape
def test_the_last_step_is_where_sampling_starts(process: Process, shape: tuple[int, ...]) -> None:
    """x_T from noise alone is x_0 noised to T - 1: nothing of the mask is left there."""
    x_0, eps = mask_and_noise(shape)
    torch.testing.assert_close(process.start(eps), process.add_noise(x_0, eps, torch.tensor([99])))


@every_process
@every_shape
def test_outputs_become_the_mask_whatever_the_target(
    process: Process, shape: tuple[int, ...]
) -> None:
    """target and x_0_from_output are inverse to each other, in float64, at all times but T - 1."""
    x_0, eps = mask_and_noise(shape)
    for target in process.targets:
        for step in (0, 50, 98) if target == "eps" else (0, 50, 99):
            t = torch.tensor([step])
            output = process.target(x_0, eps, t, target)
            if target == "x_0":
                output = torch.log((output + 1) / 2 + 1e-12)
            found = process.x_0_from_output(output, process.add_noise(x_0, eps, t), t, target)
            torch.testing.assert_close(found, x_0, rtol=0, atol=1e-9)


@every_process
@every_shape
def test_signal_falls_and_each_draw_has_its_own_time(
    process: Process, shape: tuple[int, ...]
) -> None:
    snr = process.snr(torch.arange(100))
    assert (snr.diff() < 0).all() and snr[-1] == 0
    if hasattr(process, "alphas_cumprod"):
        gamma = process.alphas_cumprod
        torch.testing.assert_close(snr, (gamma / (1.0 - gamma)).float())
    x_0, eps = mask_and_noise(shape)
    both = process.add_noise(x_0, eps, torch.tensor([3, 80]))
    assert torch.equal(both[:1], process.add_noise(x_0[:1], eps[:1], torch.tensor([3])))
    assert torch.equal(both[1:], process.add_noise(x_0[1:], eps[1:], torch.tensor([80])))


@every_process
@every_shape
def test_half_precision_calls_keep_their_type_and_leave_the_levels_alone(
    process: Process, shape: tuple[int, ...]
) -> None:
    before = process.snr(torch.arange(100))
    x = mask_and_noise(shape)[0].bfloat16()
    assert process.add_noise(x, x, torch.tensor([3])).dtype == torch.bfloat16
    assert torch.equal(process.half().snr(torch.arange(100)), before)  # type: ignore[attr-defined]


@every_process
def test_grids_have_the_levels_of_the_process(process: Process) -> None:
    grid = process.grid(4)
    assert grid.timesteps == (99, 74, 49, 24) and process.grid(4, 0.5).timesteps == (49, 37, 24, 12)
    if grid.states == "continuous":
        expected = process.coefficients(torch.tensor(grid.timesteps), torch.ones(1).double())  # type: ignore[attr-defined]
        assert grid.levels == tuple(zip(*(x.tolist() for x in expected), strict=True))
    else:
        gamma = process.alphas_cumprod[list(grid.timesteps)]  # type: ignore[attr-defined]
        assert grid.levels == tuple((float(g), 1 - float(g)) for g in gamma)


def test_low_discrepancy_times_cover_the_range_evenly() -> None:
    for seed in range(5):
        t = low_discrepancy_timesteps(8, 1000, torch.Generator().manual_seed(seed))
        assert sorted((t // 125).tolist()) == list(range(8))


@every_process
def test_levels_are_of_each_step_and_in_float32(process: Process) -> None:
    t = torch.tensor([5, 50])
    snr = process.snr(t)
    assert snr.dtype == torch.float32 and torch.equal(snr, process.snr(torch.arange(100))[t])
    for target in process.targets:
        assert process.gain(t, target).shape == (2,)
    assert torch.equal(process.gain(t, "x_0"), torch.ones(2))


def test_low_discrepancy_times_are_equal_strides_from_one_draw() -> None:
    generator = torch.Generator().manual_seed(3)
    start = float(torch.rand((), generator=torch.Generator().manual_seed(3)))
    found = low_discrepancy_timesteps(5, 100, generator)
    assert found.dtype == torch.int64
    assert found.tolist() == [int((start + i / 5) % 1.0 * 100) for i in range(5)]
    assert low_discrepancy_timesteps(3, 1).tolist() == [0, 0, 0]
