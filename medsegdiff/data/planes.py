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
    """The planes of all cases, each an item of its own, in memory.

    Planes that no rater marked are kept, since the network must learn from them too.

    Args:
        cases: Labelled cases, of planes or of volumes.
        chain: Transforms from an item of ``datalist`` to ``keys``, with ``LoadCased`` for two
            dimensions first.
        keys: Keys of the maps to cut, all (C, X, Y) or all (C, X, Y, Z).
        every: Interval of the planes that are kept, counted over all cases in a row.

    Returns:
        Items with ``case`` (``<case>/<z>``) and the maps, plain tensors (C, X, Y).

    Raises:
        InputError: a transform of the chain refuses a case.
    """
    return [plane for i, plane in enumerate(_planes(cases, chain, keys)) if i % every == 0]


def with_class(
    planes: Iterable[dict[str, Any]],
    *,
    healthy_up_to: int = 0,
    diseased_from: int = 1,
    key: str = "label",
) -> list[dict[str, Any]]:
    """The planes labelled healthy or diseased, by the number of raters who marked anything.

    Args:
        planes: Planes from ``cut_into_planes``.
        healthy_up_to: Largest number of raters who marked a healthy plane.
        diseased_from: Least number of raters who marked a diseased plane; planes between the two
            are left out.
        key: Key of the label maps (M, X, Y), one for each rater.

    Returns:
        The planes, each with ``diseased``, 0 or 1.

    Raises:
        ValueError: ``healthy_up_to`` is negative, or not below ``diseased_from``.
        InputError: no plane is healthy, or none is diseased.
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
