"""Volumes cut into planes along their last axis, for networks of two dimensions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from medsegdiff.core.errors import InputError
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

    Planes that no rater marked are kept: that nothing is there is information.

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


def with_class(
    planes: Iterable[dict[str, Any]],
    *,
    healthy_up_to: int = 0,
    diseased_from: int = 1,
    key: str = "label",
) -> list[dict[str, Any]]:
    """Tell healthy and diseased planes apart by how many raters marked anything in them.

    Args:
        planes: of ``cut_into_planes``.
        healthy_up_to: raters at most that marked a healthy one.
        diseased_from: raters at least that marked a diseased one; others are left out.
        key: of the label maps (M, X, Y), one a rater.

    Returns:
        The planes, each with ``diseased``, 0 or 1.

    Raises:
        ValueError: a plane could be both.
        InputError: none are healthy, or none diseased.
    """
    if not 0 <= healthy_up_to < diseased_from:
        given = f"{healthy_up_to} and {diseased_from}"
        raise ValueError(f"healthy_up_to must be in [0, diseased_from). Got {given}.")
    found = []
    for plane in planes:
        raters = int((plane[key] > 0).flatten(1).any(dim=1).sum())
        if raters <= healthy_up_to or raters >= diseased_from:
            found.append({**plane, "diseased": int(raters >= diseased_from)})
    for value, name in enumerate(("healthy", "diseased")):
        if not any(plane["diseased"] == value for plane in found):
            remedy = "Add some, or change healthy_up_to and diseased_from"
            raise InputError("the data set", f"has no {name} plane to learn from", remedy)
    return found


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
