"""Statistics of members that come in batches, against NumPy on all of them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from medsegdiff.core.storage import Storage
from medsegdiff.segmentation.ensemble import (
    Ensemble,
    RunningMoments,
    WindowProgress,
    most_probable,
    predictive_entropy,
    stack_slices,
)


@pytest.mark.parametrize("batches", [[16], [5, 5, 6], [1] * 16])
@pytest.mark.parametrize("size", [(4, 5), (4, 5, 3)], ids=["2d", "3d"])
def test_mean_and_variance_do_not_depend_on_the_batches(
    size: tuple[int, ...], batches: list[int]
) -> None:
    members = torch.rand(16, 3, *size)
    moments = RunningMoments()
    for batch in members.split(batches):
        moments.update(batch)
    torch.testing.assert_close(moments.mean, torch.from_numpy(np.mean(members.numpy(), axis=0)))
    torch.testing.assert_close(moments.variance, torch.from_numpy(np.var(members.numpy(), axis=0)))


def test_the_variance_of_probabilities_is_at_most_a_quarter() -> None:
    moments = RunningMoments()
    moments.update(torch.tensor([[0.0], [1.0]]))
    moments.update(torch.tensor([[1.0], [0.0]]))
    assert float(moments.variance) == pytest.approx(0.25)


def test_entropy_in_nats() -> None:
    mean = torch.tensor([[0.5, 1.0, 1 / 3], [0.5, 0.0, 1 / 3], [0.0, 0.0, 1 / 3]])
    expected = torch.tensor([math.log(2), 0.0, math.log(3)])
    torch.testing.assert_close(predictive_entropy(mean), expected)


@pytest.mark.parametrize("size", [(5, 4), (5, 4, 3)])
def test_the_most_probable_class_is_the_first_of_the_highest(size: tuple[int, ...]) -> None:
    probability = torch.randint(4, (2, 3, *size)).float()  # with ties
    assert torch.equal(most_probable(probability), probability.argmax(dim=1).to(torch.uint8))


@pytest.mark.parametrize("in_memory", [0, 2**30])
def test_a_volume_is_put_together_of_its_slices(in_memory: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    slices = [
        Ensemble(
            mean=torch.rand(3, 4, 5),
            variance=torch.rand(3, 4, 5),
            anchor=torch.rand(3, 4, 5),
            labels=torch.randint(0, 3, (2, 4, 5), dtype=torch.uint8),
            by_steps=torch.rand(3, 4, 5).half(),
            seconds={"encode": 1.0},
            windows={"run": 1},
        )
        for _ in range(3)
    ]
    found = stack_slices(iter(slices), 3, Storage(tmp_path, in_memory))
    for name in ("mean", "variance", "anchor", "by_steps", "labels"):
        stacked = torch.stack([getattr(one, name) for one in slices], dim=-1)
        ours = getattr(found, name)
        assert ours.dtype == (torch.uint8 if name == "labels" else torch.float32)
        torch.testing.assert_close(ours, stacked.to(ours.dtype))
    assert found.seconds == {} and found.windows == {}
    assert found.mean.stride()[-1] == 20  # slice by slice in memory


def test_progress_counts_what_was_run_and_what_was_skipped() -> None:
    told: list[tuple[int, int]] = []
    progress = WindowProgress(3, lambda *at: told.append(at))
    for what in ("run", "skipped", "run"):
        progress.count(what)
    assert told == [(1, 3), (2, 3), (3, 3)] and progress.windows == {"run": 2, "skipped": 1}
    assert progress.seconds == {"encode": 0.0, "sample": 0.0} and progress.total == 3
    silent = WindowProgress(1)
    silent.count("run")
    assert silent.windows == {"run": 1, "skipped": 0}


def test_moments_without_members_and_of_half_precision() -> None:
    moments = RunningMoments()
    assert moments.count == 0 and float(moments.variance) == float(moments.mean) == 0.0
    moments.update(torch.tensor([[0.25], [0.75]]).half())
    assert moments.count == 2 and moments.mean.dtype == torch.float32
    assert float(moments.mean) == 0.5 and float(moments.variance) == pytest.approx(0.0625)
    moments.update(torch.tensor([[0.5]]))
    assert moments.count == 3 and float(moments.variance) == pytest.approx(0.125 / 3)


def test_entropy_of_any_axis() -> None:
    mean = torch.rand(2, 3, 4).softmax(dim=1)
    torch.testing.assert_close(predictive_entropy(mean, dim=1)[1], predictive_entropy(mean[1]))
    assert float(predictive_entropy(torch.tensor([1.0, 0.0]))) == 0.0
