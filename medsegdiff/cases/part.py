"""One of several parts of the cases, as for the jobs of an array of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medsegdiff.core.errors import UsageError
from medsegdiff.data.case_input import CaseInput


@dataclass(frozen=True)
class Part:
    """A part of the cases: every ``of``-th, from the case of index ``number`` on.

    Attributes:
        number: Number of the part, from 0.
        of: Number of parts.
    """

    number: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if self.of < 1:
            rule = f"must be 1 or more, not {self.of}"
            raise UsageError("--num-parts", rule, "Give the number of processes")
        if not 0 <= self.number < self.of:
            rule = f"must lie between 0 and {self.of - 1}, not be {self.number}"
            raise UsageError("--part-id", rule, "The parts are numbered from 0")

    def __call__(self, cases: Sequence[CaseInput]) -> list[CaseInput]:
        """The cases of this part; together the parts have each case once."""
        return list(cases[self.number :: self.of])


def part(number: int | None, of: int | None) -> Part | None:
    """The part that two options name; None if neither is given.

    Raises:
        UsageError: one of them is missing or out of range.
    """
    if number is None and of is None:
        return None
    if number is None or of is None:
        rule, remedy = "go together", "Give for instance --num-parts 4 --part-id 0"
        raise UsageError("--num-parts and --part-id", rule, remedy)
    return Part(number, of)
