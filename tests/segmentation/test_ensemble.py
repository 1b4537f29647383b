"""Statistics of members that come in batches, against NumPy on all of them."""

import math

import numpy as np
import pytest
import torch

from medsegdiff.segmentation.ensemble import RunningMoments, most_probable, predictive_entropy


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
