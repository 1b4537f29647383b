"""Which structures of a DICOM file make up which class, and what happens where they overlap."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError

Overlap = Literal["refuse", "greatest"]
"""Of voxels that several classes claim: an error, or the greatest class number has them."""

Name = str | int | None
"""Of a structure: its name, its number in the file, or None: the file need not have it."""


class StructureFile(Protocol):
    """What a reader of a kind of file offers."""

    shape: tuple[int, int, int]

    def present(self) -> list[tuple[int, str]]:
        """Number and name of each structure."""

    def mask(self, number: int) -> NDArray[np.bool_]:
        """(*shape) where a structure is."""


@dataclass(frozen=True)
class Structures:
    """Which structures make up which class.

    Attributes:
        names: class number -> names. Names are compared without regard to case, blanks and
            punctuation. All structures with one of the names belong to the class together.
        overlap: see :data:`Overlap`.
    """

    names: Mapping[int, tuple[Name, ...]]
    overlap: Overlap = "refuse"

    @classmethod
    def of_labels(cls, labels: Mapping[Any, str]) -> Structures:
        """Each class is the structure that has its name.

        >>> Structures.of_labels({0: "background", 1: "Liver"}).names
        {1: ('Liver',)}
        """
        return cls({int(value): (name,) for value, name in labels.items() if int(value)})

    def label_map(self, file: StructureFile, path: Path) -> NDArray[np.uint8]:
        """(*shape) class numbers.

        Raises:
            InputError: a class that the file does not have, a structure of two classes, or classes
                that overlap.
        """
        chosen = self._chosen(file.present(), path)
        labels = np.zeros(file.shape, dtype=np.uint8)
        for value in sorted(chosen):
            for number in chosen[value]:
                mask = file.mask(number)
                if self.overlap == "refuse":
                    self._check_free(labels, mask, value, path)
                labels[mask] = value
        return labels

    def _chosen(self, present: list[tuple[int, str]], path: Path) -> dict[int, list[int]]:
        """Class number -> numbers of its structures."""
        chosen: dict[int, list[int]] = {}
        taken: dict[int, int] = {}
        for value, names in self.names.items():
            chosen[value] = [number for number, name in present if _is_one(number, name, names)]
            if not chosen[value] and None not in names:
                there = ", ".join(f"{number} {name!r}" for number, name in present) or "none"
                rule = f"has no structure {_listed(names)} for class {value}; it has: {there}"
                remedy = "Name it in 'reference_names' of the data set, or null if it may be absent"
                raise InputError(path, rule, remedy)
            for number in chosen[value]:
                if taken.setdefault(number, value) != value:
                    rule = f"structure {number} is named for classes {taken[number]} and {value}"
                    raise InputError(path, rule, "Name it for one of them")
        return chosen

    def _check_free(
        self, labels: NDArray[np.uint8], mask: NDArray[np.bool_], value: int, path: Path
    ) -> None:
        others = labels[mask & (labels != value)]
        if not others.any():
            return
        other = int(others[others > 0][0])
        rule = (
            f"{_listed(self.names[other])} and {_listed(self.names[value])} overlap in "
            f"{np.count_nonzero(others)} voxels, and a voxel has one class"
        )
        remedy = "Set 'reference_overlap' of the data set to 'greatest' to give them to the latter"
        raise InputError(path, rule, remedy)


def _is_one(number: int, name: str, names: Iterable[Name]) -> bool:
    texts = {_plain(one) for one in names if isinstance(one, str)}
    return number in {one for one in names if isinstance(one, int)} or _plain(name) in texts


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _listed(names: Iterable[Name]) -> str:
    return " or ".join(repr(name) for name in names if name is not None) or "(none)"
