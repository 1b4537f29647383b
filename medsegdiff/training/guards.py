"""Guards against a loss that is not finite and against large gradients."""

from __future__ import annotations

import logging
import math

from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from monai.utils.enums import CommonKeys
from torch import nn

from medsegdiff.core.errors import InputError


def stop_on_non_finite_loss(trainer: Engine) -> None:
    """Attach to a MONAI trainer: raise before the backward pass of a loss that is not finite.

    Weights, averaged weights and checkpoints stay those of the last good step.

    Raises:
        InputError: while the trainer runs, when the loss is infinite or not a number.
    """

    @trainer.on(IterationEvents.LOSS_COMPLETED)
    def check(engine: Engine) -> None:
        loss = float(engine.state.output[CommonKeys.LOSS].detach())
        if not math.isfinite(loss):
            raise InputError(
                f"epoch {engine.state.epoch}, iteration {engine.state.iteration}",
                f"the loss is {loss}; the last checkpoint is intact",
                "Lower learning_rate and resume, or run `medsegdiff check` on the data",
            )


def pass_interrupts(engine: Engine) -> None:
    """Attach to an engine, before handlers that log errors: Ctrl-C ends it without a traceback."""

    @engine.on(Events.EXCEPTION_RAISED)
    def pass_on(_: Engine, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise error

    engine.logger.addFilter(_no_announcement)


def _no_announcement(record: logging.LogRecord) -> bool:
    """False for the line in which an engine announces an exception, which is raised anyway."""
    return not record.getMessage().startswith("Engine run is terminating due to exception")


def clip_gradients(trainer: Engine, network: nn.Module, max_norm: float) -> None:
    """Attach to a MONAI trainer: scale the gradient down to ``max_norm`` before each step.

    Args:
        trainer: Engine to attach to.
        network: Network whose gradients are scaled.
        max_norm: Largest Euclidean norm of all gradients together.
    """

    @trainer.on(IterationEvents.BACKWARD_COMPLETED)
    def clip(engine: Engine) -> None:
        nn.utils.clip_grad_norm_(network.parameters(), max_norm)
