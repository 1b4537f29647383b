"""Guards against a loss that is not finite, large gradients, and too little memory."""

from __future__ import annotations

import logging
import math

import torch
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
                "Go on with --resume and a lower --set learning_rate=..., "
                "or run `medsegdiff check` on the data",
            )


def pass_interrupts(engine: Engine) -> None:
    """Attach to an engine, before handlers that log errors: Ctrl-C ends it without a traceback."""

    @engine.on(Events.EXCEPTION_RAISED)
    def pass_on(_: Engine, error: BaseException) -> None:
        interrupt: BaseException | None = error
        while interrupt is not None and not isinstance(interrupt, KeyboardInterrupt):
            interrupt = interrupt.__cause__ or interrupt.__context__  # as a database wraps it
        if interrupt is not None:
            raise interrupt

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


def with_memory_explained(error: BaseException, trainer: Engine) -> BaseException:
    """The error itself, or one that says what to lower if the memory was too small.

    Args:
        error: Error that ended a training.
        trainer: Trainer that ran.
    """
    words = str(error)
    if isinstance(error, RuntimeError) and any(part in words for part in _NO_SHARED_MEMORY):
        rule = "the workers that load data have not enough shared memory (/dev/shm)"
        remedy = "Go on with --resume --set num_workers=0, or give a container more: --shm-size=2g"
        small = InputError("num_workers", rule, remedy)
        small.__cause__ = error
        return small
    on_cpu = isinstance(error, RuntimeError) and any(part in words for part in _NO_MEMORY)
    if not (on_cpu or isinstance(error, MemoryError | torch.OutOfMemoryError)):
        return error
    batch = getattr(getattr(trainer, "data_loader", None), "batch_size", None)
    lower = f"batch_size (it is {batch})" if batch and batch > 1 else "patch_size"
    further = "patch_size or " if batch and batch > 1 else ""
    found = InputError(
        f"epoch {trainer.state.epoch}, iteration {trainer.state.iteration}",
        "there is not enough memory for a step of training",
        f"Lower {lower}, {further}train#prepare_batch#draws by --set, in another folder",
    )
    found.__cause__ = error
    return found


_NO_SHARED_MEMORY = ("shared memory", "shm", "Bus error")
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
