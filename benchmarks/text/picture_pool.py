"""The pictures that the small text-to-image model learns from, drawn once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.text.described import (
    CUTS,
    Described,
    cut_out,
    endless,
    generated,
    of_head,
    read_heads,
    slices_of_set,
)

TRAINING_SEED = 0
WEIGHTS = {"generated": 0.24, "heads": 0.42, "acdc": 0.2, "lidc": 0.06, "chase_db1": 0.08}
"""Share of each source; what is not given leaves its share to the others."""
Source = tuple[float, Callable[[int], Described]]


def sources(heads: Path | None, sets: Sequence[str], part: str = "training") -> list[Source]:
    """Where pictures come from.

    Args:
        heads: Folder of label maps of heads, or None.
        sets: Real sets of ``CUTS``, each with ``=`` and a folder if its files lie elsewhere.
        part: ``training`` or ``choosing``.
    """
    seed = TRAINING_SEED if part == "training" else TRAINING_SEED + 100
    found: list[Source] = [(WEIGHTS["generated"], partial(generated, seed))]
    if heads is not None:
        maps = read_heads(heads, choosing=part != "training")
        found.append((WEIGHTS["heads"], partial(of_head, maps, seed)))
    for data in sets:
        name = data.partition("=")[0]
        slices = slices_of_set(data, part)
        found.append((WEIGHTS[name], partial(cut_out, slices, CUTS[name], seed)))
    return found


def drawn(found: Sequence[Source], count: int) -> tuple[Tensor, list[Described]]:
    """Pictures (count, 3, 64, 64) as uint8, and what they show, without picture and masks."""
    torch.manual_seed(TRAINING_SEED)
    pictures, shown = torch.empty(count, 3, 64, 64, dtype=torch.uint8), []
    for number, one in enumerate(islice(endless(found), count)):
        pictures[number] = ((one.picture + 1.0) * 127.5).round().clamp(0, 255).byte()
        shown.append(replace(one, picture=torch.empty(0), masks={}))
    return pictures, shown


def as_floats(pictures: Tensor) -> Tensor:
    """Bytes (B, 3, 64, 64) -> [-1, 1]."""
    return pictures.float() / 127.5 - 1.0
