"""Names and colours of a label map's values, in a file beside it or in its header, for viewers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from medsegdiff.core.atomic_files import write_text
from medsegdiff.writers.segments import Segment

CARET = 30
"""NIfTI code of the header extension that Caret and Connectome Workbench write."""


def write_colour_table(path: str | Path, segments: Sequence[Segment]) -> None:
    """Write a colour table for 3D Slicer, with the codes in comments, which Slicer ignores.

    Slicer takes the names of a label map's segments from a table loaded before it. The names have
    ``_`` for spaces. See its developer guide, "Color table file format (.txt, .ctbl)".

    Args:
        path: Path of the file, ending in ``.ctbl``; missing folders are created.
        segments: Classes to list; value 0 becomes a transparent background.
    """
    lines = ["# Color table file", f"# {len(segments) + 1} values"]
    for segment in segments:
        codes = (segment.category, segment.type, segment.modifier, segment.region)
        terms = " ".join(f"({c.value}, {c.scheme}, {c.meaning})" for c in codes if c)
        lines.append(f"# {segment.value}: {terms}")
    lines.append("0 Background 0 0 0 0")
    for segment in segments:
        red, green, blue = segment.rgb
        name = "_".join(segment.name.split())
        lines.append(f"{segment.value} {name} {red} {green} {blue} 255")
    write_text(path, "\n".join(lines) + "\n")


def caret_extension(segments: Sequence[Segment], volumes: int = 1) -> bytes:
    """The label table as a NIfTI header extension, to be stored with the code :data:`CARET`.

    It is XML with a GIFTI label table for each volume: keys, names, and colours in [0, 1].

    Args:
        segments: Classes to list.
        volumes: Number of volumes in the file; all have the same table.

    >>> from medsegdiff.writers.segments import segments_of
    >>> segment = segments_of({0: "background", 1: "Liver"})[0]
    >>> root = ElementTree.fromstring(caret_extension([segment]))
    >>> [(label.get("Key"), label.text) for label in root.iter("Label")]
    [('0', 'background'), ('1', 'Liver')]
    """
    root = ElementTree.Element("CaretExtension")
    for index in range(volumes):
        volume = ElementTree.SubElement(root, "VolumeInformation", Index=str(index))
        table = ElementTree.SubElement(volume, "LabelTable")
        _add_label(table, 0, "background", (0.0, 0.0, 0.0), 0.0)
        for segment in segments:
            _add_label(table, segment.value, segment.name, segment.colour, 1.0)
        ElementTree.SubElement(volume, "VolumeType").text = "Label"
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _add_label(
    table: ElementTree.Element,
    key: int,
    name: str,
    colour: tuple[float, float, float],
    alpha: float,
) -> None:
    parts = zip(("Red", "Green", "Blue", "Alpha"), (*colour, alpha), strict=True)
    label = ElementTree.SubElement(table, "Label", Key=str(key))
    for part, share in parts:
        label.set(part, f"{share:.6g}")
    label.text = name
