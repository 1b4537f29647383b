"""What an image costs whatever the machine: passes of networks, and multiply-accumulates."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness.contender import Contender


@dataclass(frozen=True)
class Published:
    """A configuration as its authors publish it, from figures of others.

    Attributes:
        name: Name of the system.
        size: Size of the image in pixels.
        flop_a_step: Floating point operations of one evaluation of its networks.
        steps: Number of steps of a member.
        members: Number of members of an ensemble.
        source: Source of the figures.
    """

    name: str
    size: tuple[int, ...]
    flop_a_step: float
    steps: int
    members: int
    source: str

    @property
    def evaluations(self) -> int:
        """Passes an image."""
        return self.steps * self.members

    @property
    def macs(self) -> float:
        """Multiply-accumulates an image: half of the operations."""
        return self.flop_a_step * self.evaluations / 2.0


PUBLISHED = (
    Published(
        "MedSegDiff, released code, 130 M parameters",
        (256, 256),
        521e9,
        1000,
        5,
        "Wu et al., MIDL 2023 and AAAI 2024; github.com/SuperMedIntel/MedSegDiff, its defaults; "
        "521 GFLOP a step at 256 × 256",
    ),
)


@dataclass(frozen=True)
class Cost:
    """Arithmetic of one image.

    Attributes:
        macs: Multiply-accumulates of convolutions and products of matrices; Fourier transforms,
            norms and activations are not counted.
        passes: Module -> number of images or members that went through it.
    """

    macs: float
    passes: dict[str, int]


@contextmanager
def operations() -> Iterator[FlopCounterMode]:
    """A counter of operations, without oneDNN, whose convolutions it would miss."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of devices that are not there
        without = torch.backends.mkldnn.flags(enabled=False)
        with without, FlopCounterMode(display=False) as counter:
            yield counter


@torch.no_grad()
def cost(contender: Contender, image: Tensor) -> Cost:
    """Count while one image is predicted."""
    passes: Counter[str] = Counter()
    with ExitStack() as stack:
        for network in contender.networks:
            modules = contender.counted(network) if contender.counted else {"network": network}
            for name, module in modules.items():
                stack.enter_context(_counting(module, name, passes))
        with operations() as counter:
            contender.work(image)
    factor = contender.repeats
    return Cost(
        counter.get_total_flops() * factor / 2.0,
        {name: count * factor for name, count in passes.items()},
    )


class _counting:  # noqa: N801  a context manager, used as a function
    """Counts the rows of the first argument of a module's calls."""

    def __init__(self, module: nn.Module, name: str, passes: Counter[str]) -> None:
        self.module, self.name, self.passes = module, name, passes

    def __enter__(self) -> None:
        self.hook = self.module.register_forward_pre_hook(self._count)

    def __exit__(self, *of: object) -> None:
        self.hook.remove()

    def _count(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.passes[self.name] += len(arguments[0])
