"""One training by several processes, each with a device: the same training, shared out.

Every process loads the same batches, by the same random numbers, computes the network's answer for
its share of each batch, and gets the others' answers; so the loss is that of the whole batch, and
the curve that of one process, but for rounding. The gradients of all are added before the step.
The first process alone writes. Start it by ``torch.distributed.run``, which sets ``RANK`` and the
like.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import Evaluator, IterationEvents, SupervisedTrainer
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from medsegdiff.core.errors import UsageError

_CPU = torch.device("cpu")


def processes() -> int:
    """Number of processes that ``torch.distributed.run`` has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes, logs and records."""
    return processes() == 1 or int(os.environ.get("RANK", "0")) == 0


def join_processes() -> torch.device:
    """Connect the processes of one training, if there are several, and give each its device.

    Returns:
        The GPU of this process, or the processor where there is none.
    """
    on_gpu = torch.cuda.is_available()
    if processes() > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo")
        atexit.register(_leave)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else _CPU


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def wait_for_all() -> None:
    """Waits until all processes have come here."""
    if dist.is_initialized():
        dist.barrier()


def share_out(trainer: SupervisedTrainer, evaluator: Evaluator) -> None:
    """Attach to trainer and evaluator, before other handlers; nothing for a single process.

    Args:
        trainer: Trainer whose batches are shared out.
        evaluator: Evaluator, which every process runs; the first one's figures count for all.

    Raises:
        UsageError: the processes are not connected, or the batch cannot be shared out evenly.
    """
    number = processes()
    if number == 1:
        return
    if not dist.is_initialized():
        rule = f"runs {number} times, and none knows of the others"
        remedy = "Add configs/multi_gpu_train.yaml to --config_file, or use medsegdiff train"
        raise UsageError("this training", rule, remedy)
    size = getattr(trainer.data_loader, "batch_size", None)
    if size is not None and size % number:
        rule = f"is {size}, which {number} processes cannot share evenly"
        raise UsageError("batch_size", rule, f"Give for instance --set batch_size={number * size}")
    network = trainer.network
    trainer.inferer = SharedInferer(trainer.inferer, dist.get_rank(), number)
    if hasattr(network, "noise_like"):
        network.noise_like = trainer.inferer.noise_like
    trainer.add_event_handler(Events.STARTED, lambda _: _spread_weights(network))
    trainer.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda _: _add_gradients(network))
    evaluator.add_event_handler(Events.EPOCH_COMPLETED, _spread_metrics)


class SharedInferer:
    """Calls a network with this process's share of a batch, and returns the whole answer.

    A batch that cannot be shared evenly, such as the last one of an epoch, is computed whole by
    each process.

    Args:
        inner: Inferer of MONAI that calls the network.
        rank: Number of this process, from 0.
        number: Number of processes.
    """

    def __init__(self, inner: Callable[..., Any], rank: int, number: int) -> None:
        self.inner, self.rank, self.number = inner, rank, number
        self._shared = True

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Answer of ``network`` to inputs (B, ...) and further arguments (B * R, ...)."""
        self._shared = len(inputs) % self.number == 0
        if not self._shared:
            whole = self.inner(inputs, network, *args, **kwargs)
            return _mapped(lambda x: _EqualParts.apply(x, self.number), whole)
        given = _mapped(self._own, (inputs, args, kwargs))
        answer = self.inner(given[0], network, *given[1], **given[2])
        return _mapped(lambda x: _Gathered.apply(x, self.rank, self.number), answer)

    def noise_like(self, values: Tensor) -> Tensor:
        """Normal noise like ``values`` (n, ...): this process's share of the whole batch's."""
        if not self._shared:
            return torch.randn_like(values)
        whole = values.new_empty((len(values) * self.number, *values.shape[1:]))
        return self._own(torch.randn_like(whole))

    def _own(self, values: Tensor) -> Tensor:
        return values.chunk(self.number)[self.rank]


class _Gathered(Function):
    """Parts (n, ...) of all processes -> the whole.

    All have the same loss, so the gradient of the own part is known without asking the others.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, own: Tensor, rank: int, number: int) -> Tensor:
        ctx.part = rank, number  # type: ignore[attr-defined]
        own = own.contiguous()
        parts = [torch.empty_like(own) for _ in range(number)]
        dist.all_gather(parts, own)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rank, number = ctx.part
        return gradients[0].chunk(number)[rank], None, None


class _EqualParts(Function):
    """What every process computes whole: each has its part of the gradient, all of them the sum."""

    @staticmethod
    def forward(ctx: FunctionCtx, whole: Tensor, number: int) -> Tensor:
        ctx.number = number  # type: ignore[attr-defined]
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] / ctx.number, None


def _mapped(change: Callable[[Tensor], Tensor], thing: Any) -> Any:
    """Nested tuples, lists and dictionaries with their tensors changed."""
    if isinstance(thing, Tensor):
        return change(thing)
    if isinstance(thing, dict):
        return {key: _mapped(change, value) for key, value in thing.items()}
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return type(thing)(*(_mapped(change, value) for value in thing))
    if isinstance(thing, list | tuple):
        return type(thing)(_mapped(change, value) for value in thing)
    return thing


def _add_gradients(network: nn.Module) -> None:
    """Add up the gradients of all processes, in one message."""
    found = [p.grad for p in network.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in found])
    dist.all_reduce(flat)
    for gradient, total in zip(found, flat.split([g.numel() for g in found]), strict=True):
        gradient.copy_(total.view_as(gradient))


def _spread_weights(network: nn.Module) -> None:
    """Give all processes the first one's weights."""
    for tensor in (*network.parameters(), *network.buffers()):
        dist.broadcast(tensor.data, 0)


def _spread_metrics(evaluator: Engine) -> None:
    """Give all processes the first one's figures, so that all stop at the same epoch."""
    found = [dict(evaluator.state.metrics)]
    dist.broadcast_object_list(found, 0)
    evaluator.state.metrics.update(found[0])
