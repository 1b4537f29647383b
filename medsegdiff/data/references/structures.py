"""The structures of a DICOM file that belong to each class, and the treatment of overlaps."""

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
"""Treatment of voxels in several classes: an error, or the greatest class number is taken."""

Name = str | int | None
"""Name of a structure, its number in the file, or None: the file need not have it."""


class StructureFile(Protocol):
    """Interface of a reader of structures."""

    shape: tuple[int, int, int]

    def present(self) -> list[tuple[int, str]]:
        """Number and name of each structure."""

    def mask(self, number: int) -> NDArray[np.bool_]:
        """Mask (*shape) of a structure."""


@dataclass(frozen=True)
class Structures:
    """The structures that belong to each class.

    Attributes:
        names: Names by class number. Names are compared without regard to case, blanks and
            punctuation. All structures with one of the names belong to the class together.
        overlap: Treatment of voxels in several classes (:data:`Overlap`).
    """

    names: Mapping[int, tuple[Name, ...]]
    overlap: Overlap = "refuse"

    @classmethod
    def of_labels(cls, labels: Mapping[Any, str]) -> Structures:
        """Structures in which each class is the structure with the class's name.

        >>> Structures.of_labels({0: "background", 1: "Liver"}).names
        {1: ('Liver',)}
        """
        return cls({int(value): (name,) for value, name in labels.items() if int(value)})

    def label_map(self, file: StructureFile, path: Path) -> NDArray[np.uint8]:
        """Class numbers (*shape) uint8.

        Args:
            file: Reader of the structures.
            path: Path of the file, for messages.

        Raises:
            InputError: the file lacks a class, a structure is in two classes, or classes overlap.
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
        """Numbers of the structures of each class, by class number."""
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
