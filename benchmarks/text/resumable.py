"""Trains networks for minutes of this process's clock, and goes on where it was interrupted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from medsegdiff.training import weight_average

SAVED = 4.0
"""Minutes of this process's clock between two states."""

logger = logging.getLogger("train")


def fit(
    networks: nn.ModuleList,
    loss: Callable[[float], Tensor],
    optimizer: torch.optim.Optimizer,
    minutes: float,
    rate: float,
    state: Path,
    keep: Callable[[Sequence[Any]], None] = lambda networks: None,
) -> list[Any]:
    """Train for so long in all; the averaged networks.

    Args:
        networks: Networks to train.
        loss: Function from the share of the training that is done to the loss of a new batch.
        optimizer: Optimizer of their parameters.
        minutes: Minutes of this process's clock, those of earlier runs included.
        rate: Learning rate; it falls to 0 over the second half.
        state: File to go on from, if it is there, and to write every ``SAVED`` minutes.
        keep: Called with the averaged networks after each state, and at the end.
    """
    average = weight_average(networks, 0.998).eval()
    averaged = list(cast(nn.ModuleList, average.module))
    number, before = 0, 0.0
    if state.is_file():
        found = torch.load(state, weights_only=True)
        networks.load_state_dict(found["networks"])
        average.load_state_dict(found["average"])
        optimizer.load_state_dict(found["optimizer"])
        number, before = found["step"], found["minutes"]
        logger.info("%s: going on after %.1f minutes", state.stem, before)
    started, recent, kept = time.process_time(), list[float](), before

    def spent() -> float:
        return before + (time.process_time() - started) / 60.0

    def save() -> None:
        content = {
            "networks": networks.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": number,
            "minutes": spent(),
        }
        aside = state.with_suffix(".part")
        torch.save(content, aside)
        aside.replace(state)
        keep(averaged)

    while (done := spent() / minutes if minutes else 1.0) < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (number + 1) / 100) * min(1.0, 2.0 * (1.0 - done))
        value = loss(done)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        number += 1
        average.update_parameters(networks)
        recent.append(float(value.detach()))
        if number % 100 == 0:
            logger.info("%s: step %d, loss %.4f", state.stem, number, sum(recent) / len(recent))
            recent = []
        if spent() - kept > SAVED:
            kept = spent()
            save()
    save()
    return averaged
