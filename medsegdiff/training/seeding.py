"""Training that follows a seed, and leaves the caller's random numbers alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within, torch's global random numbers follow a seed; afterwards they go on as before.

    For what takes no ``torch.Generator``: the first weights of layers, and dropout.

    Args:
        seed: Seed of the CPU's and the device's numbers.
        device: Device of the network.
    """
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.random.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
