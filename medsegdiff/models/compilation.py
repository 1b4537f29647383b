"""``torch.compile`` as an option that falls back to the plain network where it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from medsegdiff.core.types import Compilation

logger = logging.getLogger(__name__)


class WithFallback:
    """A compiled function; after its first failure the plain one is used, with one warning.

    Args:
        plain: Function without compilation.
        compiled: Compiled function, which compiles on its first call with each new shape.
        name: Name in the warning.
    """

    def __init__(self, plain: Callable[..., Any], compiled: Callable[..., Any], name: str) -> None:
        self.plain, self.function, self.name = plain, compiled, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's value."""
        if self.function is self.plain:
            return self.plain(*args, **kwargs)
        try:
            return self.function(*args, **kwargs)
        except Exception as error:  # compilers fail in many ways, and none is the user's fault
            reason = str(error).strip().split("\n")[0]
            logger.warning("%s runs uncompiled: %s: %s", self.name, type(error).__name__, reason)
            self.function = self.plain
            return self.plain(*args, **kwargs)


def compile_parts(network: nn.Module, how: Compilation, parts: tuple[str, ...]) -> nn.Module:
    """Compile some sub-modules of a network in place; its weights keep their names.

    Args:
        network: Network in evaluation mode, on its device.
        how: ``off``; ``default``; or ``reduce-overhead``, which records CUDA graphs on a GPU.
            Useful only for many images of few sizes: the first image of each size takes up to
            minutes.
        parts: Names of the sub-modules.

    Returns:
        The network.
    """
    if how == "off":
        return network
    for name in parts:
        part = network.get_submodule(name)
        compiled = torch.compile(part.forward, mode=how, dynamic=False)
        part.forward = WithFallback(part.forward, compiled, name)
    return network
