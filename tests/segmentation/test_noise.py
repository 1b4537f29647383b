"""Noise depends on its key and its place, and on nothing else."""

import itertools

import pytest
import torch

from medsegdiff.segmentation.noise import MemberNoise, blocks_of, noise_field

SIDES = (16, 8, 5)  # of blocks


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
    whole = noise_field((0, "case", 1), 2, window(*large), SIDES[: len(small)])
    inner = [slice(a - la, b - la) for (a, b), (la, _) in zip(small, large, strict=True)]
    assert torch.equal(
        noise_field((0, "case", 1), 2, window(*small), SIDES[: len(small)]),
        whole[(slice(None), *inner)],
    )


def test_it_is_standard_normal_and_independent_over_blocks() -> None:
    field = noise_field((0, "case", 0), 1, window((0, 256), (0, 256)), (16, 16))[0]
    assert abs(float(field.mean())) < 0.02 and abs(float(field.std()) - 1) < 0.02
    assert abs(float((field[:32] * field[32:64]).mean())) < 0.05


@pytest.mark.parametrize("other", [(1, "case", 0), (0, "other", 0), (0, "case", 1)])
def test_seed_case_and_member_change_it(other: tuple) -> None:
    place = window((0, 8), (0, 8))
    assert not torch.equal(
        noise_field((0, "case", 0), 1, place, (16, 16)), noise_field(other, 1, place, (16, 16))
    )


def test_members_do_not_depend_on_their_batch() -> None:
    place = window((3, 9), (0, 5))
    together = MemberNoise(7, "case", [0, 1, 2], place, (6, 5), (16, 16))
    alone = MemberNoise(7, "case", [2], place, (6, 5), (16, 16))
    draws = [together.start(2)]
    assert torch.equal(draws[0][2:], alone.start(2))
    for _ in range(3):
        draws.append(together(draws[0]))
        assert torch.equal(draws[-1][2:], alone(draws[0][2:]))
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(draws, 2))


def test_first_members_may_share_their_noise_with_all_cases_and_seeds() -> None:
    place = window((3, 9), (0, 5))

    def start(seed: int, case: str, members: list[int]) -> torch.Tensor:
        noise = MemberNoise(seed, case, members, place, (6, 5), (16, 16), shared=[40, 7])
        return noise.start(2)

    first, second = start(0, "a", [0, 1, 2]), start(1, "b", [0, 1, 2])
    assert torch.equal(first[:2], second[:2]) and not torch.equal(first[2], second[2])
    assert not torch.equal(first[0], first[1])
    assert torch.equal(start(0, "a", [1]), first[1:2])
    own = MemberNoise(0, "a", [2], place, (6, 5), (16, 16)).start(2)
    assert torch.equal(own, first[2:])


@pytest.mark.parametrize("mirrored", [(), (0,), (0, 1)])
def test_overlapping_windows_see_the_same_noise_mirrored_or_not(mirrored: tuple[int, ...]) -> None:
    left = MemberNoise(7, "case", [0], window((0, 40), (3, 9)), (40, 6), (16, 16), 1, mirrored)
    right = MemberNoise(7, "case", [0], window((10, 50), (3, 9)), (40, 6), (16, 16), 1, mirrored)
    axes = [2 + axis for axis in mirrored]
    for _ in range(3):  # x_T and two steps
        a, b = left.start(2).flip(axes), right.start(2).flip(axes)
        assert torch.equal(a[:, :, 10:], b[:, :, :30])


def test_coarse_states_of_overlapping_windows_see_the_same_noise() -> None:
    left = MemberNoise(7, "case", [0], window((0, 40), (0, 8)), (20, 4), (16, 16), stride=2)
    right = MemberNoise(7, "case", [0], window((10, 51), (0, 8)), (21, 4), (16, 16), stride=2)
    assert torch.equal(left.start(2)[:, :, 5:], right.start(2)[:, :, :15])


def test_a_small_image_is_one_block_and_a_large_one_is_cut() -> None:
    assert blocks_of((20, 28, 20)) == [20, 28, 20]
    assert blocks_of((256, 256, 100)) == [16, 16, 16]
    assert blocks_of((512, 512)) == [16, 16]
