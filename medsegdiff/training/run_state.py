"""All that a run is at the end of an epoch, so that a resumed run is the same run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from ignite.handlers import EMAHandler
from monai.engines import Evaluator, SupervisedTrainer
from monai.handlers import EarlyStopHandler
from torch.optim.lr_scheduler import LambdaLR

from medsegdiff.training.random_state import random_state, restore_random_state


@dataclass
class RunState:
    """Gathers and restores the state of a run between two epochs.

    Make it before training starts: what the configuration gives at the start is told from what
    training made of it, so that other learning rates and lengths take effect in a resumed run.

    Attributes:
        trainer: Trainer with network, optimizer and data.
        evaluator: Evaluator with the best validation.
        ema: Handler of the averaged weights.
        lr_scheduler: Learning rate schedule of the optimizer.
        early_stop: Handler that counts validations without improvement, if there is one.
        best: Best validation so far, None before the first.
    """

    trainer: SupervisedTrainer
    evaluator: Evaluator
    ema: EMAHandler
    lr_scheduler: Any
    early_stop: EarlyStopHandler | None = None
    best: float | None = None
    _start: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self._start = copy.deepcopy(self.lr_scheduler.state_dict())

    def gathered(self) -> dict[str, Any]:
        """The state, as tensors, numbers and texts by name."""
        trainer, state = self.trainer, self.trainer.state
        return {
            "network": trainer.network.state_dict(),
            "ema": self.ema.ema_model.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "gradients": [n for n, p in trainer.network.named_parameters() if p.grad is not None],
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "lr_scheduler_start": self._start,
            "trainer": {"epoch": state.epoch, "iteration": state.iteration},
            "averaged": getattr(self._momentum, "event_index", 0),
            "validation": self._validation(),
            "handlers": {name: part.state_dict() for name, part in self._parts().items()},
            "random": random_state(trainer.data_loader),
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Make trainer, evaluator and handlers go on from a state.

        Args:
            content: State that :meth:`gathered` gave.
        """
        self.trainer.network.load_state_dict(content["network"])
        self.ema.ema_model.load_state_dict(content["ema"])
        self._restore_rates(content)
        self._restore_gradients(set(content["gradients"]))
        for name, value in content["trainer"].items():
            setattr(self.trainer.state, name, value)
        for name, part in self._parts().items():
            if name in content["handlers"]:
                part.load_state_dict(content["handlers"][name])
        if self._momentum is not None:
            self._momentum.event_index = content["averaged"]
        self.best = content["validation"]["best"]
        self.evaluator.state.best_metric = content["validation"]["best_metric"]
        self.evaluator.state.best_metric_epoch = content["validation"]["best_metric_epoch"]
        restore_random_state(content["random"], self.trainer.data_loader)

    @property
    def has_stopped(self) -> bool:
        """Whether early stopping had ended the run."""
        stop = self._parts().get("early_stop")
        return stop is not None and stop.counter >= stop.patience

    @property
    def _momentum(self) -> Any:
        """Warm-up of the averaged weights, whose whole state a checkpoint may not hold."""
        return getattr(self.ema, "momentum_scheduler", None)

    def _validation(self) -> dict[str, Any]:
        state = self.evaluator.state
        metric = None if state.best_metric is None else float(state.best_metric)
        epoch = int(state.best_metric_epoch)
        return {"best": self.best, "best_metric": metric, "best_metric_epoch": epoch}

    def _parts(self) -> dict[str, Any]:
        """Further objects with a state, by name."""
        prepare = self.trainer.prepare_batch
        found = {
            "early_stop": getattr(self.early_stop, "_handler", None),  # ignite's, which counts
            "prepare_batch": prepare if hasattr(prepare, "state_dict") else None,
            "scaler": getattr(self.trainer, "scaler", None),
        }
        return {name: part for name, part in found.items() if part is not None}

    def _restore_gradients(self, names: set[str]) -> None:
        """Give parameters that had a gradient one of zeros, which an optimizer does not skip."""
        for name, parameter in self.trainer.network.named_parameters():
            parameter.grad = torch.zeros_like(parameter) if name in names else None

    def _restore_rates(self, content: Mapping[str, Any]) -> None:
        """Restore optimizer and schedule, except for what the configuration gives otherwise now."""
        optimizer, schedule = self.trainer.optimizer, self.lr_scheduler
        base = [_base_rate(group) for group in optimizer.param_groups]
        optimizer.load_state_dict(content["optimizer"])
        before = content["lr_scheduler_start"]
        changed = {k: v for k, v in self._start.items() if k in before and before[k] != v}
        schedule.load_state_dict({**content["lr_scheduler"], **copy.deepcopy(changed)})
        for group, rate in zip(optimizer.param_groups, base, strict=True):
            _change_base_rate(group, rate)
        if changed and isinstance(schedule, LambdaLR):
            for group, rate in zip(optimizer.param_groups, _rates(schedule), strict=True):
                group["lr"] = rate


def _base_rate(group: Mapping[str, Any]) -> float:
    return float(group.get("initial_lr", group["lr"]))


def _change_base_rate(group: dict[str, Any], rate: float) -> None:
    """Scale the rates of a group of parameters to another rate at the start."""
    before = _base_rate(group)
    if before in (rate, 0.0):
        return
    group["lr"] *= rate / before
    if "initial_lr" in group:
        group["initial_lr"] = rate


def _rates(schedule: LambdaLR) -> list[float]:
    return [float(rate) for rate in schedule.get_lr()]
