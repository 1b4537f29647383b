"""All random numbers of a training: those of torch, NumPy, Python, transforms and samplers."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable
from torch import Generator

_ENDS = (torch.Tensor, np.ndarray, str, bytes, type, ModuleType)  # nothing random lies within


def random_state(loader: Any) -> dict[str, Any]:
    """State of all random numbers that training draws, as tensors, numbers and texts.

    Args:
        loader: Loader of the training batches, whose transforms and samplers have states too.
    """
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": _numpy_to_plain(np.random.get_state(legacy=True)),
        "python": random.getstate(),
        "transforms": [_numpy_to_plain(one.R.get_state()) for one in randomizables(loader)],
        "generators": [generator.get_state() for generator in _generators(loader)],
    }


def restore_random_state(state: Mapping[str, Any], loader: Any) -> None:
    """Let random numbers go on from a state that :func:`random_state` gave.

    Args:
        state: State, by its parts.
        loader: Loader made by the same configuration as then.
    """
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    np.random.set_state(_plain_to_numpy(state["numpy"]))
    random.setstate(state["python"])
    for one, numbers in zip(randomizables(loader), state["transforms"], strict=True):
        one.R.set_state(_plain_to_numpy(numbers))
    for generator, numbers in zip(_generators(loader), state["generators"], strict=True):
        generator.set_state(numbers)


def randomizables(loader: Any) -> list[Randomizable]:
    """All random transforms that a loader's data set holds, in a fixed order, each once."""
    return list(_within(getattr(loader, "dataset", None), set()))


def _within(thing: Any, seen: set[int]) -> Iterator[Randomizable]:
    if id(thing) in seen or isinstance(thing, _ENDS):
        return
    seen.add(id(thing))
    if isinstance(thing, Randomizable):
        yield thing
    if isinstance(thing, list | tuple):
        parts = list(thing)
    elif isinstance(thing, dict):
        parts = list(thing.values())
    else:
        parts = list(getattr(thing, "__dict__", {}).values())
    for part in parts:
        yield from _within(part, seen)


def _generators(loader: Any) -> list[Generator]:
    """Generators of a loader and its samplers, each once."""
    batches = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), getattr(batches, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(one): one for one in found if isinstance(one, Generator)}.values())


def _numpy_to_plain(state: Any) -> list[Any]:
    name, keys, *rest = state
    return [name, torch.from_numpy(keys.astype(np.int64)), *rest]


def _plain_to_numpy(state: Any) -> Any:
    name, keys, *rest = state
    return (name, keys.numpy().astype(np.uint32), *rest)
