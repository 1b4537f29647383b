"""Grids: where they begin, how they are spaced, what they refuse."""

import pytest
import torch

from medsegdiff.diffusion.grid import CLEAN, Level, TimeGrid, grid_at, time_grid

TAU = torch.arange(1, 1001, dtype=torch.float64) / 1000


def grid_of(steps: int, start: float = 1.0) -> TimeGrid:
    return time_grid(1 - TAU, TAU, steps, start)


@pytest.mark.parametrize("start", [1.0, 0.5, 0.05])
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50])
def test_the_grid_falls_from_its_start_and_is_evenly_spaced(steps: int, start: float) -> None:
    grid = grid_of(steps, start)
    assert len(grid) == steps and grid.timesteps[0] == round(1000 * start) - 1
    gaps = [a - b for a, b in zip(grid.timesteps, grid.timesteps[1:], strict=False)]
    assert not gaps or (0 <= max(gaps) - min(gaps) <= 1 and min(grid.timesteps) >= 0)
    assert [t for t, _, _ in grid] == list(grid.timesteps)
    assert [now for _, now, _ in grid] == list(grid.levels)
    assert [after for _, _, after in grid] == [*grid.levels[1:], CLEAN]


@pytest.mark.parametrize(("steps", "start"), [(0, 1.0), (1001, 1.0), (501, 0.5), (0, 0.5)])
def test_too_many_or_no_steps_are_refused(steps: int, start: float) -> None:
    with pytest.raises(ValueError, match=f"between 1 and {round(1000 * start)}"):
        grid_of(steps, start)


@pytest.mark.parametrize("start", [0.0, -0.1, 1.1])
def test_starts_outside_the_process_are_refused(start: float) -> None:
    with pytest.raises(ValueError, match=r"start must be in \(0, 1\]"):
        grid_of(1, start)


def test_a_grid_of_chosen_steps_has_their_levels() -> None:
    grid = grid_at(1 - TAU, TAU, [499, 99])
    assert list(grid) == [(499, Level(0.5, 0.5), Level(0.9, 0.1)), (99, Level(0.9, 0.1), CLEAN)]


@pytest.mark.parametrize("timesteps", [[], [3, 3], [3, 5]])
def test_chosen_steps_that_do_not_fall_are_refused(timesteps: list[int]) -> None:
    with pytest.raises(ValueError, match="timesteps must be one at least, and fall"):
        grid_at(1 - TAU, TAU, timesteps)


def test_what_is_refused_is_told_with_what_would_do() -> None:
    told = {
        (0, 1.0): "steps must be between 1 and 1000, the time steps of the process. Got 0.",
        (
            501,
            0.5,
        ): "steps must be between 1 and 500, the time steps of the process below start 0.5."
        " Got 501.",
        (1, 0.0): "start must be in (0, 1]. Got 0.0.",
    }
    for arguments, words in told.items():
        with pytest.raises(ValueError) as error:
            grid_of(*arguments)
        assert str(error.value) == words
    with pytest.raises(ValueError) as error:
        grid_at(1 - TAU, TAU, [3, 5])
    assert str(error.value) == "timesteps must be one at least, and fall. Got [3, 5]."


def test_the_kind_of_states_goes_on_with_the_grid() -> None:
    assert grid_of(3).states == grid_at(1 - TAU, TAU, [3]).states == "continuous"
    assert time_grid(1 - TAU, TAU, 3, states="discrete").states == "discrete"
    assert grid_at(1 - TAU, TAU, [3], "discrete").states == "discrete"
    assert grid_of(1000).timesteps == tuple(range(999, -1, -1))
