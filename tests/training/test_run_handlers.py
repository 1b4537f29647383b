"""What every training run has, on the smallest of trainings."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from ignite.handlers import EMAHandler
from ignite.metrics import Average
from monai.engines import SupervisedEvaluator, SupervisedTrainer, default_prepare_batch
from monai.handlers import ValidationHandler

from medsegdiff.core.errors import InputError
from medsegdiff.training.run_handlers import RunHandlers

BATCH = {"image": 3 * torch.ones(1, 1), "label": torch.zeros(1, 1)}


def run(
    folder: Path, epochs: int, resumed: bool = False, anchor_steps: int = 0, **settings: Any
) -> SupervisedTrainer:
    """A line through the origin, fitted with a validation each epoch."""
    torch.manual_seed(0)
    network = torch.nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=[BATCH] * 2,
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.MSELoss(),
        decollate=False,
    )
    trainer.prepare_batch = partial(default_prepare_batch)
    trainer.prepare_batch.anchor_steps = anchor_steps
    ema = EMAHandler(network, momentum=0.5)
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=[BATCH],
        network=ema.ema_model,
        key_val_metric={"size": Average(output_transform=lambda o: o["pred"].abs().mean())},
        metric_cmp_fn=lambda current, best: current < best,
        decollate=False,
    )
    ValidationHandler(interval=1, validator=evaluator).attach(trainer)
    RunHandlers(
        trainer=trainer,
        evaluator=evaluator,
        ema=ema,
        lr_scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0),
        output_dir=str(folder),
        fold=3,
        cases=((), ()),
        tracking_uri=f"sqlite:///{folder.parent}/mlruns.db",
        experiment_name="line",
        **{"lower_is_better": True, **settings},
    ).attach(resumed)
    trainer.run()
    return trainer


def weight(folder: Path, name: str) -> float:
    content = torch.load(folder / name, weights_only=False)
    return float(content.get("network", content)["weight"])


def test_a_run_leaves_averages_and_can_be_taken_up_again(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    trainer = run(whole, 4)
    last = float(trainer.network.weight)
    assert weight(whole, "last_checkpoint_epoch=4.pt") == last
    assert abs(last) < abs(weight(whole, "final.pt"))  # an average lags behind
    assert weight(whole, "best.pt") == weight(whole, "final.pt")  # the smallest is the last
    kept = {path.name for path in whole.glob("last*")}
    assert kept == {"last_checkpoint_epoch=3.pt", "last_checkpoint_epoch=4.pt"}
    run(halves, 2)
    assert weight(halves, "final.pt") != weight(whole, "final.pt")
    run(halves, 4, resumed=True)
    assert weight(halves, "final.pt") == weight(whole, "final.pt")
    with pytest.raises(InputError, match="to resume from"):
        run(tmp_path / "none", 2, resumed=True)


def test_validations_of_the_encoder_alone_do_not_count(tmp_path: Path) -> None:
    run(tmp_path / "all", 3, lower_is_better=False)  # the first is the best
    run(tmp_path / "later", 3, anchor_steps=4, lower_is_better=False)  # of 6
    run(tmp_path / "none", 3, anchor_steps=6, lower_is_better=False)
    best = {name: weight(tmp_path / name, "best.pt") for name in ("all", "later", "none")}
    assert abs(best["all"]) > abs(best["later"])
    assert best["later"] == best["none"] == weight(tmp_path / "none", "final.pt")


def test_mlflow_has_both_engines_figures_in_one_run(tmp_path: Path) -> None:
    run(tmp_path / "first", 2, parameters={"seed": 5})
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlruns.db")
    (found,) = client.search_runs([client.get_experiment_by_name("line").experiment_id])
    assert found.info.run_name == "first-fold3" and found.info.status == "FINISHED"
    assert {"train_loss", "size"} <= set(found.data.metrics)
    told = {"fold": "3", "parameters": "1", "training_cases": "0", "seed": "5"}
    assert told.items() <= found.data.params.items()
    assert [a.path for a in client.list_artifacts(found.info.run_id)] == ["cases.json"]


def test_gradients_are_bounded_where_asked_for(tmp_path: Path) -> None:
    free = float(run(tmp_path / "free", 1).network.weight)
    bound = float(run(tmp_path / "bound", 1, max_gradient_norm=0.01).network.weight)
    start = float(weight_at_start())
    assert abs(bound - start) <= 2 * 0.01 * 0.01 + 1e-7 < abs(free - start)


def weight_at_start() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.nn.Linear(1, 1, bias=False).weight.detach()


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BATCH, "image", torch.full((1, 1), float("nan")))
        with pytest.raises(InputError, match="the loss is nan"):
            run(tmp_path / "run", 1)
