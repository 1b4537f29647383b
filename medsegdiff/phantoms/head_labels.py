"""Label maps of whole heads in FreeSurfer's numbers: names, sides and tissues of their structures.

Such maps come with SynthSeg (Billot et al., "SynthSeg: Segmentation of brain MRI scans of any
contrast and resolution without retraining", Medical Image Analysis 2023). Numbers from 500 on are
what surrounds the brain: skull, muscles, skin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError

Tissue = Literal["air", "white matter", "grey matter", "deep grey matter", "fluid", "surroundings"]
"""Kind of tissue; structures of a kind look alike, but for small differences."""

SIDES = ("left", "right")
BACKGROUND = 0
SURROUNDINGS = 500
"""Least number of what surrounds the brain."""

PAIRED: dict[str, tuple[Tissue, tuple[int, ...], tuple[int, ...]]] = {
    "thalamus": ("deep grey matter", (10,), (49,)),
    "caudate": ("deep grey matter", (11,), (50,)),
    "putamen": ("deep grey matter", (12,), (51,)),
    "pallidum": ("deep grey matter", (13,), (52,)),
    "hippocampus": ("grey matter", (17,), (53,)),
    "amygdala": ("grey matter", (18,), (54,)),
    "lateral ventricle": ("fluid", (4, 5), (43, 44)),
    "cerebellum": ("grey matter", (8, 7), (47, 46)),
}
"""Paired structures that captions name: tissue, numbers of the left one and of the right one."""
SINGLE: dict[str, tuple[Tissue, tuple[int, ...]]] = {
    "brain stem": ("white matter", (16,)),
    "fourth ventricle": ("fluid", (15,)),
}
"""Single structures that captions name: tissue and numbers."""
_UNNAMED: dict[Tissue, tuple[int, ...]] = {
    "white matter": (2, 41, 7, 46, 28, 60, 85),
    "grey matter": (3, 42, 26, 58),
    "fluid": (14, 24, 30, 62, 72),
}
"""Numbers that have a tissue of their own, or none of the tables above."""

HEAD_NAMES = (
    *PAIRED,
    *(f"{side} {name}" for name in PAIRED for side in SIDES),
    *SINGLE,
)
"""All names of structures of heads; paired ones with and without their side."""


@dataclass(frozen=True)
class HeadLabels:
    """A label map of a head.

    Attributes:
        labels: Labels (X, Y, Z) as places in ``numbers``, in LPS, 1 mm; uint8.
        numbers: FreeSurfer's numbers, sorted; the first one is 0.
    """

    labels: NDArray[np.uint8]
    numbers: tuple[int, ...]

    def places_of(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """Values in ``labels`` of some of FreeSurfer's numbers; absent ones are left out."""
        return tuple(self.numbers.index(one) for one in numbers if one in self.numbers)

    @cached_property
    def named(self) -> dict[str, tuple[int, ...]]:
        """Name -> values in ``labels``, of all names in ``HEAD_NAMES``."""
        found = {name: self.places_of(left + right) for name, (_, left, right) in PAIRED.items()}
        for name, (_, *sides) in PAIRED.items():
            for side, numbers in zip(SIDES, sides, strict=True):
                found[f"{side} {name}"] = self.places_of(numbers)
        return found | {name: self.places_of(numbers) for name, (_, numbers) in SINGLE.items()}

    @cached_property
    def voxels(self) -> dict[str, NDArray[np.intp]]:
        """Name -> some voxels (N, 3) of it, every second one along each axis; absent names lack."""
        coarse = self.labels[::2, ::2, ::2]
        found = {name: 2 * np.argwhere(np.isin(coarse, of)) for name, of in self.named.items()}
        return {name: voxels for name, voxels in found.items() if len(voxels)}


def read_head_labels(file: str | Path) -> HeadLabels:
    """Read a label map of a head, and cut it to what is not background.

    Args:
        file: Path of a NIfTI file with FreeSurfer's numbers, 1 mm.

    Raises:
        InputError: the file cannot be read, or shows no hippocampus by FreeSurfer's numbers.
    """
    remedy = "Give a label map with FreeSurfer's numbers"
    try:
        image = nib.load(file)
        values = np.rint(np.asanyarray(image.dataobj)).astype(np.int16)
    except (OSError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise InputError(file, "cannot be read as NIfTI", remedy) from error
    if values.ndim != 3 or not np.isin(PAIRED["hippocampus"][1], values).all():
        raise InputError(file, "holds no hippocampus with FreeSurfer's number 17", remedy)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(("L", "P", "S")))
    values = apply_orientation(values, turn)
    filled = np.nonzero(values != BACKGROUND)
    inside = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in filled)
    numbers, places = np.unique(values[inside], return_inverse=True)
    if numbers[0] != BACKGROUND:  # the map fills its box
        numbers, places = np.insert(numbers, 0, BACKGROUND), places + 1
    return HeadLabels(
        places.reshape(values[inside].shape).astype(np.uint8), tuple(int(n) for n in numbers)
    )


def tissue_of(number: int) -> Tissue:
    """Kind of tissue of one of FreeSurfer's numbers."""
    if number == BACKGROUND:
        return "air"
    if number >= SURROUNDINGS:
        return "surroundings"
    for tissue, numbers in _UNNAMED.items():  # before the cerebellum, which has both kinds
        if number in numbers:
            return tissue
    for tissue, *sides in PAIRED.values():
        if any(number in numbers for numbers in sides):
            return tissue
    for tissue, numbers in SINGLE.values():
        if number in numbers:
            return tissue
    return "grey matter"


def sideless(number: int) -> int:
    """The left one's number, for one of a pair; else the number itself.

    >>> sideless(53), sideless(17), sideless(16)
    (17, 17, 16)
    """
    return _LEFT_OF.get(number, number)


_LEFT_OF = {
    right: left
    for _, lefts, rights in PAIRED.values()
    for left, right in zip(lefts, rights, strict=True)
} | {41: 2, 42: 3, 58: 26, 60: 28, 62: 30}
