"""Volumes cut into planes along their last axis, for networks of two dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from medsegdiff.data.manifest import Case, datalist
from medsegdiff.data.transforms import load


def cut_into_planes(
    cases: Iterable[Case],
    chain: Callable[[Any], Any],
    *,
    keys: Sequence[str] = ("image", "label"),
    every: int = 1,
) -> list[dict[str, Any]]:
    """Load cases and keep all their planes in memory, each an item of its own.

    Planes that no reader marked are kept: that nothing is there is information.

    Args:
        cases: labelled, of planes or of volumes.
        chain: transforms from an item of ``datalist`` to ``keys``, with ``LoadCased`` for two
            dimensions first.
        keys: of the maps to cut, (C, X, Y) or (C, X, Y, Z) alike.
        every: take one plane in so many, over all cases in a row.

    Returns:
        Items of ``case`` (``<case>/<z>``) and the maps, plain tensors (C, X, Y).

    Raises:
        InputError: from a transform of the chain.
    """
    return [plane for i, plane in enumerate(_planes(cases, chain, keys)) if i % every == 0]


def _planes(
    cases: Iterable[Case], chain: Callable[[Any], Any], keys: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for item in datalist(cases):
        loaded = load(chain, item)
        maps = {key: torch.as_tensor(loaded[key]).as_subclass(torch.Tensor) for key in keys}
        if next(iter(maps.values())).ndim == 3:  # one plane
            maps = {key: x[..., None] for key, x in maps.items()}
        for z in range(next(iter(maps.values())).shape[-1]):
            planes = {key: x[..., z].clone() for key, x in maps.items()}
            yield {"case": f"{item['case']}/{z}", **planes}
