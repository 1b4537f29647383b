"""Losses that are not finite, and gradients that are too large."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer

from medsegdiff.core.errors import InputError
from medsegdiff.training.guards import (
    clip_gradients,
    pass_interrupts,
    stop_on_non_finite_loss,
    with_memory_explained,
)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_stay_those_of_the_last_good_step(bad: float) -> None:
    network = torch.nn.Linear(1, 1)
    losses = iter([1.0, 1.0, bad, 1.0])
    seen: list[torch.Tensor] = []

    def loss(pred: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        seen.append(network.weight.detach().clone())
        return pred.mean() * next(losses)

    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": torch.ones(1, 1), "label": torch.ones(1, 1)}] * 4,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=loss,
        decollate=False,
    )
    stop_on_non_finite_loss(trainer)
    with pytest.raises(InputError, match=r"epoch 1, iteration 3.*learning_rate"):
        trainer.run()
    assert torch.equal(network.weight, seen[-1]) and not torch.equal(seen[0], seen[-1])


@pytest.mark.parametrize(("max_norm", "moved"), [(0.5, 0.5), (100.0, 3.0)])
def test_a_step_is_no_longer_than_the_greatest_gradient(max_norm: float, moved: float) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    before = network.weight.detach().clone()
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": 3 * torch.ones(1, 1), "label": torch.ones(1, 1)}],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=lambda pred, _: pred.mean(),
        decollate=False,
    )
    clip_gradients(trainer, network, max_norm)
    trainer.run()
    assert float((before - network.weight).abs()) == pytest.approx(moved, rel=1e-5)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    ],
)
def test_too_little_memory_says_what_to_lower(error: Exception) -> None:
    def step(*_: object) -> None:
        raise error

    trainer = Engine(step)
    trainer.data_loader = torch.utils.data.DataLoader([0, 1], batch_size=2)  # type: ignore[arg-type]
    with pytest.raises(type(error)):
        trainer.run([0])
    told = with_memory_explained(error, trainer)
    assert isinstance(told, InputError)
    for key in ("batch_size (it is 2)", "patch_size", "draws"):
        assert key in str(told)
    other = ValueError("bad")
    assert with_memory_explained(other, trainer) is other


@pytest.mark.parametrize(
    "words",
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that workers",
        "unable to write to file </torch_7_1>: No space left on device (28), shared memory",
        "unable to allocate shared memory(shm) for file </torch_7_1>",
    ],
)
def test_too_little_shared_memory_is_told_from_memory(words: str) -> None:
    told = with_memory_explained(RuntimeError(words), Engine(lambda *_: None))
    assert isinstance(told, InputError)
    assert "--resume --set num_workers=0" in str(told) and "/dev/shm" in str(told)


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def wrapped(*_: Any) -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        raise RuntimeError("database is locked")  # noqa: B904, as such libraries do


@pytest.mark.parametrize("step", [interrupted, wrapped])
def test_an_interruption_is_passed_on_before_errors_are_logged(step: Callable[..., None]) -> None:
    engine, logged = Engine(step), list[BaseException]()
    pass_interrupts(engine)
    engine.add_event_handler(Events.EXCEPTION_RAISED, lambda _, error: logged.append(error))
    with pytest.raises(KeyboardInterrupt):
        engine.run([0], max_epochs=1)
    assert logged == []
