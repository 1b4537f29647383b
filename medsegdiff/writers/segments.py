"""The description of a class for viewers: its number, name, colour, and coded meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from medsegdiff import __version__
from medsegdiff.viz.pictures import COLOURS


class Code(NamedTuple):
    """A coded concept, in the order of DICOM's code sequences."""

    value: str
    scheme: str
    meaning: str


class Algorithm(NamedTuple):
    """The algorithm that made the segments: a bundle's name and version."""

    name: str
    version: str


MEDSEGDIFF = Algorithm("medsegdiff", __version__)
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
PRIVATE_SCHEME = "99MEDSEGDIFF"
"""DICOM keeps scheme names that begin with 99 for private codes."""


@dataclass(frozen=True)
class Segment:
    """A foreground class.

    Attributes:
        value: Value of the class's voxels in the label map.
        name: Name of the class in the data set.
        colour: Red, green and blue in [0, 1], the colour in the preview.
        category: Code of the category, such as an anatomical structure.
        type: Code of the type, the structure or finding itself.
        modifier: Code of the type's modifier, such as "Anterior" of a hippocampus.
        region: Code of the anatomical region, for a type that is not an anatomical structure.
    """

    value: int
    name: str
    colour: tuple[float, float, float]
    category: Code
    type: Code
    modifier: Code | None = None
    region: Code | None = None

    @property
    def rgb(self) -> tuple[int, int, int]:
        """The colour in [0, 255]."""
        red, green, blue = (round(255 * part) for part in self.colour)
        return red, green, blue


def segments_of(
    labels: Mapping[int, str],
    codes: Mapping[int, Mapping[str, Sequence[str]]] | None = None,
) -> tuple[Segment, ...]:
    """The foreground classes of a label table.

    Args:
        labels: Value -> name; 0 is the background and left out.
        codes: Value -> ``category``, ``type``, and optionally ``modifier`` and ``region``, each
            with code value, scheme and meaning. Without category and type, the class is an
            anatomical structure with a private code.

    Returns:
        One segment per class, sorted by value.

    >>> segments_of({0: "background", 1: "Anterior"})[0].type
    Code(value='label-1', scheme='99MEDSEGDIFF', meaning='Anterior')
    """
    return tuple(
        _segment(value, labels[value], (codes or {}).get(value, {}))
        for value in sorted(labels)
        if value != 0
    )


def _segment(value: int, name: str, code: Mapping[str, Sequence[str]]) -> Segment:
    hexes = COLOURS[(value - 1) % len(COLOURS)].lstrip("#")
    red, green, blue = (int(hexes[i : i + 2], 16) / 255 for i in (0, 2, 4))
    private = Code(f"label-{value}", PRIVATE_SCHEME, name[:64])
    return Segment(
        value,
        name,
        (red, green, blue),
        Code(*code.get("category", ANATOMICAL_STRUCTURE)),
        Code(*code.get("type", private)),
        *(Code(*code[key]) if key in code else None for key in ("modifier", "region")),
    )
