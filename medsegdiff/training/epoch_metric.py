"""A metric of torchmetrics in MONAI's and ignite's engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ignite.metrics import Metric


class EpochMetric(Metric):
    """Figure of each epoch by a metric of torchmetrics, as ignite's engines take metrics.

    It may be one of an evaluator's ``additional_metrics``, or its ``key_val_metric``. Several
    processes share their states by torchmetrics.

    Args:
        metric: Metric of torchmetrics, whose ``compute`` gives a scalar.
        output_transform: Function of the engine's output that gives the arguments of the metric's
            ``update``, such as ``monai.handlers.from_engine(["members", "raters"])``.
    """

    def __init__(self, metric: Any, output_transform: Callable[[Any], Any]) -> None:
        self.metric = metric  # ignite calls reset at once
        super().__init__(output_transform, skip_unrolling=True)

    def reset(self) -> None:
        """Forget all images."""
        self.metric.reset()

    def update(self, output: Any) -> None:
        """Add the images of a batch."""
        self.metric.update(*output)

    def compute(self) -> float:
        """Figure of all images since ``reset``; NaN where it is undefined."""
        return float(self.metric.compute())
