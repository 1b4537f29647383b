"""The same training for all: AdamW, warm-up and cosine over the time, averaged weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from monai.utils import set_determinism
from torch import Tensor, nn

from benchmarks.harness.contender import Contender
from benchmarks.harness.data import Study
from medsegdiff.training import weight_average

Look = Callable[[nn.Module], float]
"""Network with averaged weights -> Dice of its contender on the held-out fold."""

WARM_UP = 0.05
"""Fraction of the time over which the learning rate rises."""
AVERAGING = 0.998
"""Greatest share of the past in the averaged weights; less in the first steps."""
CLIP = 5.0
"""Greatest norm of the gradient."""


@dataclass(frozen=True)
class Plan:
    """What every contender gets.

    Attributes:
        seconds: Wall time of all networks of a contender together.
        learning_rate: Greatest learning rate.
        seed: Seed of weights, order and augmentation.
        device: Device to train on.
        precision: Arithmetic, ``fp32`` or ``bf16``, the same for all.
        max_steps: Most steps of each network; None: as many as fit.
        looks: Number of times that the averaged weights are judged on the way, evenly over
            the time, while the clock stands still.
    """

    seconds: float
    learning_rate: float
    seed: int
    device: torch.device
    precision: str = "fp32"
    max_steps: int | None = None
    looks: int = 0


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes:
        networks: Networks with averaged weights, in evaluation mode.
        seconds: Wall time spent.
        steps: Number of steps of all networks together.
        skipped: Steps among them whose loss or gradient was not finite.
        curve: Seconds of training and Dice, (seconds, Dice), at each look.
    """

    networks: list[nn.Module]
    seconds: float
    steps: int
    skipped: int
    curve: list[tuple[float, float]] = field(default_factory=list)


def train(contender: Contender, study: Study, plan: Plan, dice: Look | None = None) -> Trained:
    """Train the networks of a contender one after the other, each for its share of the time.

    Several networks are not looked at on the way, as they answer together.
    """
    share = plan.seconds / len(contender.networks)
    look = dice if len(contender.networks) == 1 else None
    runs = [
        _train_network(network, contender, study, plan, share, plan.seed + number, look)
        for number, network in enumerate(contender.networks)
    ]
    return Trained(
        [network for run in runs for network in run.networks],
        sum(run.seconds for run in runs),
        sum(run.steps for run in runs),
        sum(run.skipped for run in runs),
        runs[0].curve,
    )


def _train_network(
    network: nn.Module,
    contender: Contender,
    study: Study,
    plan: Plan,
    share: float,
    seed: int,
    dice: Look | None,
) -> Trained:
    set_determinism(seed)
    layout = torch.channels_last if study.dims == 2 else torch.channels_last_3d
    network.to(plan.device)
    network.to(memory_format=layout).train()  # type: ignore[call-overload]
    average = weight_average(network, AVERAGING)
    rate = contender.rate * plan.learning_rate
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)
    steps = skipped = 0
    curve: list[tuple[float, float]] = []
    started, looking = time.perf_counter(), 0.0
    for batch in study.batches(seed):
        seconds = time.perf_counter() - started - looking
        spent = seconds / share if share > 0 else 1.0
        if plan.max_steps is not None:
            spent = max(spent, steps / plan.max_steps)
        if dice is not None and len(curve) < plan.looks and spent >= (len(curve) + 1) / plan.looks:
            state = torch.get_rng_state()
            curve.append((seconds, dice(average.module.eval())))
            torch.set_rng_state(state)
            looking = time.perf_counter() - started - seconds
        if spent >= 1.0:
            break
        optimizer.param_groups[0]["lr"] = rate * schedule(spent)
        loss = _on_device(contender, plan, steps)(network, batch)
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        if torch.isfinite(loss) and torch.isfinite(norm):
            optimizer.step()
        else:
            skipped += 1
        steps += 1
        average.update_parameters(network)
    seconds = time.perf_counter() - started - looking
    set_determinism(None)
    return Trained([average.module.eval()], seconds, steps, skipped, curve)


def schedule(spent: float) -> float:
    """Factor on the learning rate when a fraction of the time is spent: warm-up times cosine.

    >>> schedule(0.0), schedule(0.5), schedule(1.0)
    (0.0, 0.5, 0.0)
    """
    return min(1.0, spent / WARM_UP) * 0.5 * (1.0 + math.cos(math.pi * min(spent, 1.0)))


def _on_device(
    contender: Contender, plan: Plan, step: int
) -> Callable[[nn.Module, dict[str, Tensor]], Tensor]:
    def loss(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        moved = {name: torch.as_tensor(x).to(plan.device) for name, x in batch.items()}
        kind, on = plan.device.type, plan.precision == "bf16"
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=on):
            return contender.loss(network, moved, step)

    return loss
