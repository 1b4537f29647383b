"""DDTI: ultrasound images of the thyroid, nodules outlined in an XML file a case.

``<n>.xml`` holds for each ``<mark>`` the number ``i`` of an image, ``<n>_<i>.jpg``, and ``<svg>``,
which is JSON: a list of regions with ``points``.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.errors import InputError
from medsegdiff.data.images import read_geometry
from medsegdiff.data.public.contours import fill

Outline = list[tuple[float, float]]


def convert(
    root: Path, output: Path, progress: Callable[[Sequence[Path]], Iterable[Path]]
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Copy each image that has an outline, and draw its mask (0 and 1, PNG).

    Args:
        root: Folder of the set as downloaded.
        output: Folder for the converted files.
        progress: Wrapper of the sequence of XML files.

    Returns:
        Entries of a ``dataset.json``, and the reason of each failure, by file.
    """
    entries: list[dict[str, str]] = []
    failures: dict[str, str] = {}
    files = sorted(root.glob("[0-9]*.xml"), key=lambda file: (len(file.stem), file.stem))
    for file in progress(files):
        try:
            outlines = read_outlines(file)
            entries += [_write(file, i, outlines[i], output) for i in sorted(outlines)]
        except InputError as error:
            failures[file.name] = f"{error.rule}. {error.remedy}"
    return entries, failures


def read_outlines(file: Path) -> dict[str, list[Outline]]:
    """Outlines of the nodules in each image of a case, in pixels, by the image's number.

    Raises:
        InputError: the file is truncated or otherwise not readable.
    """
    outlines: dict[str, list[Outline]] = defaultdict(list)
    try:
        for mark in ElementTree.parse(file).getroot().iter("mark"):
            text = (mark.findtext("svg") or "").strip()
            for region in json.loads(text) if text else []:
                points = [(float(p["x"]), float(p["y"])) for p in region.get("points") or []]
                if points:
                    outlines[(mark.findtext("image") or "").strip()].append(points)
    except (ElementTree.ParseError, ValueError, KeyError, TypeError, AttributeError) as error:
        rule = f"its outlines cannot be read ({error})"
        raise InputError(file, rule, "Its images are left out") from None
    return dict(outlines)


def _write(file: Path, number: str, outlines: list[Outline], output: Path) -> dict[str, str]:
    from PIL import Image  # seldom needed

    image = file.with_name(f"{file.stem}_{number}.jpg")
    columns, rows = read_geometry(image).shape
    masks = [fill(points, (columns, rows), with_outline=True) for points in outlines]
    name = f"ddti_{image.stem}"
    with written_aside(output / "imagesTr" / f"{name}.jpg") as aside:
        shutil.copyfile(image, aside)
    with written_aside(output / "labelsTr" / f"{name}.png") as aside:
        Image.fromarray(np.any(masks, axis=0).T.astype(np.uint8)).save(aside)
    paths = {"image": f"imagesTr/{name}.jpg", "label": f"labelsTr/{name}.png"}
    return paths | {"patient": file.stem}
