"""A metric of torchmetrics is one of an engine's, and may be its key metric."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from ignite.engine import Engine
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from monai.inferers import SimpleInferer
from torch import Tensor

from medsegdiff.metrics import BrierScore, GeneralizedEnergyDistance
from medsegdiff.training import EpochMetric


def label_maps(seed: int) -> Tensor:
    return torch.randint(0, 2, (2, 3, 6, 6), generator=torch.Generator().manual_seed(seed))


def test_each_epoch_is_counted_by_itself() -> None:
    """Items of a batch that were taken apart, and other ones in the second epoch."""
    batches = {1: label_maps(0), 2: label_maps(1)}

    def step(engine: Engine, _: object) -> list[dict[str, Tensor]]:
        maps = batches[engine.state.epoch]
        return [{"members": m, "raters": r} for m, r in zip(maps, label_maps(2), strict=True)]

    engine, found = Engine(step), []
    metric = EpochMetric(GeneralizedEnergyDistance(), from_engine(["members", "raters"]))
    metric.attach(engine, "ged2")
    engine.add_event_handler("EPOCH_COMPLETED", lambda e: found.append(e.state.metrics["ged2"]))
    engine.run([None], max_epochs=2)
    alone = GeneralizedEnergyDistance()
    for epoch in (1, 2):
        alone.reset()
        alone.update(batches[epoch], label_maps(2))
        assert found[epoch - 1] == pytest.approx(alone.compute().item())
    assert found[0] != found[1]


def test_it_is_a_key_metric_of_which_less_is_better() -> None:
    def loader() -> Iterator[dict[str, Tensor]]:
        yield {"image": torch.zeros(1, 2, 4, 4), "label": torch.ones(1, 1, 4, 4)}

    network = torch.nn.Identity()
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=list(loader()),
        network=network,
        inferer=SimpleInferer(),
        key_val_metric={"brier": EpochMetric(BrierScore(), from_engine(["pred", "label"]))},
        metric_cmp_fn=lambda current, best: current < best,
    )
    evaluator.run(1)
    assert evaluator.state.metrics == {"brier": 1.0}
    assert evaluator.state.best_metric == 1.0
