"""Averages of a network's weights over its training."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def weight_average(network: nn.Module, most: float) -> AveragedModel:
    """Exponential moving average of weights; call ``update_parameters`` after each step.

    The n-th update keeps the share n / (10 + n) of the average, so that the random start is soon
    forgotten, and at most ``most``. Buffers are copied.

    Args:
        network: Module to follow; its weights now are the first average.
        most: Largest share that is kept, in [0, 1).

    Returns:
        The average, whose ``module`` is the network with averaged weights.
    """

    def update(averages: Any, weights: Any, number: Any) -> None:
        n = float(number)
        get_ema_multi_avg_fn(min(most, n / (10 + n)))(averages, weights, number)

    average = AveragedModel(network, multi_avg_fn=update)
    average.update_parameters(network)
    return average
