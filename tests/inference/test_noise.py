"""Noise depends on its key and its place, and on nothing else."""

import pytest
import torch

from medsegdiff.inference.noise import StepNoise, member_noise, noise_field


def window(*edges: tuple[int, int]) -> list[slice]:
    return [slice(a, b) for a, b in edges]


@pytest.mark.parametrize(
    ("large", "small"),
    [
        (((0, 70), (10, 90)), ((31, 34), (40, 90))),
        (((0, 40), (5, 66), (0, 33)), ((20, 40), (31, 33), (0, 1))),
    ],
    ids=["2d", "3d"],
)
def test_windows_that_overlap_see_the_same_noise(large: tuple, small: tuple) -> None:
    whole = noise_field((0, "case", 1), 2, window(*large))
    inner = [slice(a - la, b - la) for (a, b), (la, _) in zip(small, large, strict=True)]
    assert torch.equal(noise_field((0, "case", 1), 2, window(*small)), whole[(slice(None), *inner)])


def test_it_is_standard_normal_and_independent_over_blocks() -> None:
    field = noise_field((0, "case", 0), 1, window((0, 256), (0, 256)))[0]
    assert abs(float(field.mean())) < 0.02 and abs(float(field.std()) - 1) < 0.02
    assert abs(float((field[:32] * field[32:64]).mean())) < 0.05


@pytest.mark.parametrize("other", [(1, "case", 0), (0, "other", 0), (0, "case", 1)])
def test_seed_case_and_member_change_it(other: tuple) -> None:
    place = window((0, 8), (0, 8))
    assert not torch.equal(noise_field((0, "case", 0), 1, place), noise_field(other, 1, place))


def test_members_do_not_depend_on_their_batch() -> None:
    place = window((3, 9), (0, 5))
    together = member_noise(7, "case", [0, 1, 2], 2, place)
    assert torch.equal(together[2:], member_noise(7, "case", [2], 2, place))
    x = torch.zeros(3, 2, 6, 5)
    steps = StepNoise(7, "case", [0, 1, 2], place)
    alone = StepNoise(7, "case", [2], place)
    for _ in range(3):
        assert torch.equal(steps(x)[2:], alone(x[2:]))
