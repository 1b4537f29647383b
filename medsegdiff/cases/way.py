"""The way in which the cases of one call are done: which of them, where, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from medsegdiff.cases.one_by_one import Engine, in_turn
from medsegdiff.cases.part import Part
from medsegdiff.core.errors import InputError


@dataclass(frozen=True)
class Way:
    """The way in which the cases of one call are done.

    Attributes:
        part: Part of the cases that this process does, while others do the rest in the same folder;
            None: all.
        engine: Function that does the cases, here or on other machines.
        tell: Function of each input or case, as it ends, and its error.
    """

    part: Part | None = None
    engine: Engine = in_turn
    tell: Callable[[str, InputError | None], None] = lambda case, error: None


ALONE = Way()
"""All cases, one after the other, in this process."""
