"""Places that the user gives: points, a box, a mask, or a markups file of 3D Slicer."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.core.types import LPS_TO_RAS
from medsegdiff.data.images import read_image
from medsegdiff.locating.place import Located, Place

POINT = "three numbers such as --at 26,-20,-14 (RAS+ mm; several joined by ;), or a markups file"
BOX = "six numbers such as --roi 8,-46,-33,44,6,5 (RAS+ mm, two corners), a mask, or a markups file"
FLIPS = {"LPS": LPS_TO_RAS[:3, :3], "RAS": np.eye(3)}
"""World of a markups file -> matrix to RAS+."""


class GivenPlaces:
    """The places of ``--at`` and ``--roi``, the same in all scans.

    Args:
        size: Size in mm of the box around a point; needed for ``at``.
        at: Points as text ``X,Y,Z``, or the path of a markups file of 3D Slicer
            (``.mrk.json``, ``.json`` or ``.fcsv``); None: none.
        roi: Box as text of two corners, path of a markups file with a box, or path of a mask, whose
            voxels other than 0 it encloses; None: none.

    Raises:
        UsageError: neither or both are given, or one cannot be understood.
        InputError: a file cannot be read.
    """

    def __init__(
        self, size: Sequence[float], at: str | None = None, roi: str | None = None
    ) -> None:
        if (at is None) == (roi is None):
            raise UsageError("--at and --roi", "need one of them", f"Give {POINT}; or {BOX}")
        if at is not None and len(size) != 3:
            rule = "needs the size of the box around the point, which this bundle does not say"
            raise UsageError("--at", rule, f"Set place_mm=[X,Y,Z], or give {BOX}")
        if at is not None:
            points = read_points(at)
            one = len(points) == 1
            extent = (float(size[0]), float(size[1]), float(size[2]))
            self.places = tuple(
                Place("" if one else name, point, extent) for name, point in points.items()
            )
        else:
            self.places = (read_box(str(roi)),)

    def record(self) -> list[dict[str, Any]]:
        """The places as numbers, for the record of a case: their file's path may name a patient."""
        return [
            {
                "name": place.name,
                "centre": list(place.centre),
                "size": list(place.size),
                "axes": place.axes.tolist(),
            }
            for place in self.places
        ]

    def __call__(self, scan: MetaTensor) -> Located:
        """The places; the scan is not looked at."""
        return Located(self.places, "user")


Point = tuple[float, float, float]


def read_points(at: str) -> dict[str, Point]:
    """Name -> point in RAS+ mm, of ``--at``.

    >>> read_points("26,-20,-14; -26,-20,-14")
    {'point-1': (26.0, -20.0, -14.0), 'point-2': (-26.0, -20.0, -14.0)}

    Raises:
        UsageError: the text is neither numbers nor a file.
        InputError: the file has no points.
    """
    path = Path(at)
    if path.suffix.lower() in (".json", ".fcsv"):
        found = _of_table(path) if path.suffix.lower() == ".fcsv" else _of_markups(path)
        if not found:
            raise InputError(path, "has no points", "Place one in 3D Slicer, and save it again")
        return found
    points = [_numbers(part, 3, "--at", POINT) for part in at.split(";") if part.strip()]
    return {f"point-{i}": (p[0], p[1], p[2]) for i, p in enumerate(points, start=1)}


def read_box(roi: str) -> Place:
    """The place of ``--roi``.

    Raises:
        UsageError: the text is neither numbers nor a file, or the box is empty.
        InputError: the file has no box.
    """
    path = Path(roi)
    if path.suffix.lower() == ".json":
        return _box_of_markups(path)
    if path.exists():
        return _box_of_mask(path)
    corners = np.array(_numbers(roi, 6, "--roi", BOX)).reshape(2, 3)
    return _box(corners.min(axis=0), corners.max(axis=0), roi)


def _box(low: NDArray[Any], high: NDArray[Any], of: str | Path) -> Place:
    if (high <= low).any():
        raise UsageError(of, "is a box without a volume", f"Give {BOX}")
    centre, size = (low + high) / 2.0, high - low
    return Place("", _triple(centre), _triple(size))


def _box_of_mask(path: Path) -> Place:
    values, geometry = read_image(path)
    index = np.argwhere(np.squeeze(values) != 0)
    if not len(index) or index.shape[1] != 3:
        rule = "is not a mask of a volume" if len(index) else "is a mask without a voxel"
        raise InputError(path, rule, f"Give {BOX}")
    ends = np.array([index.min(axis=0) - 0.5, index.max(axis=0) + 0.5])
    corners = np.stack(np.meshgrid(*ends.T, indexing="ij"), axis=-1).reshape(-1, 3)
    world = corners @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]
    return _box(world.min(axis=0), world.max(axis=0), path)


def _box_of_markups(path: Path) -> Place:
    for markup in _markups(path):
        if markup.get("type") == "ROI" and len(markup.get("size", ())) == 3:
            flip = _flip(markup, path)
            axes = np.array(markup.get("orientation", np.eye(3))).reshape(3, 3)
            turned = flip @ axes
            turned[:, 0] *= np.sign(np.linalg.det(turned))
            centre = flip @ np.array(markup["center"], dtype=float)
            return Place("", _triple(centre), _triple(markup["size"]), turned)
    raise InputError(path, "has no box", "Draw an ROI in 3D Slicer's Markups, and save it again")


def _of_markups(path: Path) -> dict[str, Point]:
    found: dict[str, Point] = {}
    for markup in _markups(path):
        flip = _flip(markup, path)
        for point in markup.get("controlPoints", ()):
            place = point.get("position")
            if place is not None and len(place) == 3:
                name = _unused(str(point.get("label") or f"point-{len(found) + 1}"), found)
                found[name] = _triple(flip @ np.array(place, dtype=float))
    return found


def _markups(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        markups = content["markups"]
        return [dict(one) for one in markups]
    except (OSError, ValueError, KeyError, TypeError) as error:
        rule = f"cannot be read as a markups file ({type(error).__name__})"
        raise InputError(path, rule, "Save the points in 3D Slicer as .mrk.json") from error


def _of_table(path: Path) -> dict[str, Point]:
    """Points of the older format of 3D Slicer, a table after lines that begin with #."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        rule = f"cannot be read ({type(error).__name__})"
        raise InputError(path, rule, "Save the points in 3D Slicer as .mrk.json") from error
    world = "LPS"
    for line in lines:
        if line.startswith("# CoordinateSystem"):
            told = line.partition("=")[2].strip()
            world = {"0": "RAS", "1": "LPS"}.get(told, told)
    flip = _flip({"coordinateSystem": world}, path)
    found: dict[str, Point] = {}
    for row in csv.reader(line for line in lines if line and not line.startswith("#")):
        place = _numbers(",".join(row[1:4]), 3, path, POINT)
        label = row[11] if len(row) > 11 and row[11] else f"point-{len(found) + 1}"
        found[_unused(label, found)] = _triple(flip @ np.array(place))
    return found


def _flip(markup: dict[str, Any], path: Path) -> NDArray[np.float64]:
    world = str(markup.get("coordinateSystem", "LPS"))
    if world not in FLIPS:
        rule = f"has points in the world {world!r}, which is neither LPS nor RAS"
        raise InputError(path, rule, "Save it again in 3D Slicer")
    return FLIPS[world]


def _unused(name: str, known: dict[str, Point]) -> str:
    """A name for files and records that is not taken."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "point"
    number, found = 2, plain
    while found in known:
        number, found = number + 1, f"{plain}-{number}"
    return found


def _numbers(text: str, count: int, of: str | Path, remedy: str) -> list[float]:
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not np.isfinite(found).all():
        raise UsageError(of, f"cannot be understood: {text!r}", f"Give {remedy}")
    return found


def _triple(values: Sequence[float] | NDArray[Any]) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z
