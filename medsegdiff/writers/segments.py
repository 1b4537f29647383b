"""What viewers want to know about a class: its number, name, colour, and coded meaning."""

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
    """What drew the segments: a bundle's name and version."""

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
        value: of its voxels in the label map.
        name: as the data set says it.
        colour: red, green and blue in [0, 1], that of the preview.
        category: what sort of thing it is.
        type: what it is.
        modifier: of the type, such as "Anterior" of a hippocampus.
        region: where in the body it lies, for what is no anatomical structure itself.
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
        labels: value -> name; 0 is the background and left out.
        codes: value -> ``category``, ``type``, and optionally ``modifier`` and ``region``, each as
            code value, scheme and meaning; without the first two it is an anatomical structure
            with a private code.

    Returns:
        One segment a class, by rising value.

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
