from __future__ import annotations

from typing import cast

import torch
from torch import nn

from medsegdiff.training.averaging import weight_average


def test_weights_are_averaged_as_their_recurrence_says_and_buffers_copied() -> None:
    linear, norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
    network = nn.Sequential(linear, norm)
    average = weight_average(network, most=0.3)
    expected = linear.weight.detach().clone()
    for n in range(1, 8):
        with torch.no_grad():
            linear.weight.normal_()
        norm.num_batches_tracked.fill_(n)  # type: ignore[union-attr]
        average.update_parameters(network)
        keep = min(0.3, n / (10 + n))
        expected = keep * expected + (1.0 - keep) * linear.weight.detach()
    averaged = dict(average.module.state_dict())
    torch.testing.assert_close(averaged["0.weight"], expected)
    assert int(cast(torch.Tensor, averaged["1.num_batches_tracked"])) == 7
