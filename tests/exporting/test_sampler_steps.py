"""Steps as numbers are the sampler's own: a walk by them ends where the sampler ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from medsegdiff.core.errors import InputError
from medsegdiff.core.sampling_settings import SamplingSettings
from medsegdiff.diffusion import GaussianProcess, make_sampler
from medsegdiff.exporting.sampler_steps import sampler_steps, start_factor


class _Shifted(GaussianProcess):
    """A process that starts from something else than noise."""

    def start(self, noise: Tensor) -> Tensor:
        return noise + torch.arange(noise.shape[-1])


@pytest.mark.parametrize(
    ("sampler", "options"),
    [("ddim", {"eta": 0.0}), ("ddim", {"eta": 1.0}), ("ddpm", {}), ("euler", {})],
)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_walk_by_the_numbers_is_the_samplers(
    sampler: str, options: dict[str, float], steps: int
) -> None:
    process = GaussianProcess(n_timesteps=100, input_scale=0.5)
    settings = SamplingSettings(sampler=sampler, sampler_options=options, steps=steps)
    noises = torch.randn(1 + steps, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()

    def denoise(x_t: Tensor, t: int) -> Tensor:
        return torch.tanh(x_t * (1 + t / 100))

    further: Iterator[Tensor] = iter(noises[1:])
    wanted = make_sampler(sampler, **options)(
        denoise, process.start(noises[0]), process.grid(steps, 1.0), lambda _: next(further)
    )
    further = iter(noises[1:])
    x_t = start_factor(process) * noises[0]
    for step in sampler_steps(settings, process):
        x_0 = denoise(x_t, step.t)
        x_t = step.of_x_0 * x_0 + step.of_x_t * x_t
        if step.of_noise:
            x_t = x_t + step.of_noise * next(further)
    torch.testing.assert_close(x_0, wanted)


@pytest.mark.parametrize("settings", [{"sampler": "heun"}, {"warm_start": 0.5}])
def test_what_needs_more_than_the_last_state_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"cannot be exported\. Choose one of ddim"):
        sampler_steps(SamplingSettings(**settings), GaussianProcess(n_timesteps=100))  # type: ignore[arg-type]


def test_a_start_that_is_no_scaled_noise_is_refused() -> None:
    with pytest.raises(InputError, match="does not start from scaled noise"):
        start_factor(_Shifted())
