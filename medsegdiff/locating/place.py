"""A place in a scan: a box around a structure, and the part of the scan within it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, SpatialResample
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError

LEAST_INSIDE = 0.6
"""Share of a place's box that has to lie inside the scan."""

TURNED = np.deg2rad(12.0)
"""Angle in radians from which a part of a scan is resampled to the directions of its place."""

CUBIC = 3
"""Order of the splines that intensities are interpolated by."""

By = Literal["template", "network", "user"]
"""Kinds of finders of places."""


@dataclass(frozen=True, eq=False)
class Place:
    """A box in a scan.

    Attributes:
        name: Name of the place, such as ``left``; empty for the only one.
        centre: Centre in RAS+ mm of the scan's world.
        size: Size in mm along each of its axes.
        axes: Rotation (3, 3) whose columns are the directions of its axes in the scan's world.
    """

    name: str
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    axes: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))

    @property
    def corners(self) -> NDArray[np.float64]:
        """(8, 3) corners in RAS+ mm."""
        signs = np.array(list(product((-0.5, 0.5), repeat=3)))
        return np.asarray(self.centre + (signs * self.size) @ self.axes.T)

    @property
    def box_mm(self) -> list[list[float]]:
        """Least and greatest coordinates, [[x, y, z], [x, y, z]] in RAS+ mm."""
        corners = self.corners
        return [[round(float(v), 1) for v in end] for end in (corners.min(0), corners.max(0))]

    def turned_in(self, affine: NDArray[np.float64]) -> bool:
        """Whether it is turned by ``TURNED`` or more, both in the world and in a grid.

        A scan whose grid was turned with the head shows the head upright.

        Args:
            affine: Affine of the grid, voxel index -> RAS+ mm.
        """
        as_ras = nib.orientations.inv_ornt_aff(nib.io_orientation(affine), (1, 1, 1))
        grid = (affine @ as_ras)[:3, :3]
        grid = grid / np.linalg.norm(grid, axis=0)
        return min(_angle(self.axes), _angle(self.axes.T @ grid)) >= TURNED


@dataclass(frozen=True)
class Located:
    """Places that were found in a scan.

    Attributes:
        places: Places, one at least.
        by: Kind of the finder.
        score: Certainty of the finder, in its own unit; None for the user.
        seconds: Time that it took.
    """

    places: tuple[Place, ...]
    by: By
    score: float | None = None
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """The entry ``location`` of a case's record."""
        score = None if self.score is None else round(self.score, 3)
        boxes = {place.name: place.box_mm for place in self.places}
        return {"by": self.by, "score": score, "seconds": round(self.seconds, 2), "box_mm": boxes}


@dataclass(frozen=True)
class Part:
    """The part of a scan around a place.

    Attributes:
        place: The place.
        image: Intensities (C, *shape) with their affine.
        box: Part of the scan's grid that it is.
    """

    place: Place
    image: MetaTensor
    box: tuple[slice, slice, slice]

    def index_of(self, point: Sequence[float]) -> NDArray[np.float64]:
        """Voxel index (3,) in the part, of a point in RAS+ mm of the scan's world."""
        affine = np.asarray(self.image.affine, dtype=np.float64)
        return np.asarray(np.linalg.solve(affine, [*point, 1.0])[:3])


def cut_out(scan: MetaTensor, place: Place, least_inside: float = LEAST_INSIDE) -> Part:
    """The smallest part of a scan's grid that holds a place.

    Args:
        scan: Image (C, X, Y, Z) with its affine, voxel index -> RAS+ mm.
        place: Place to cut out.
        least_inside: Share of the place's box that has to lie inside the scan.

    Raises:
        InputError: the place lies outside the scan, or hardly inside.
    """
    affine, shape = np.asarray(scan.affine, dtype=np.float64), np.array(scan.shape[1:])
    corners = np.column_stack([place.corners, np.ones(8)])
    found = np.linalg.solve(affine, corners.T)[:3]
    low, high = np.floor(found.min(axis=1)).astype(int), np.ceil(found.max(axis=1)).astype(int) + 1
    inside_low, inside_high = np.maximum(low, 0), np.minimum(high, shape)
    size = np.maximum(inside_high - inside_low, 0)
    if not size.prod() or size.prod() < least_inside * (high - low).prod():
        named = f"the place {place.name or 'to segment'} at {_told(place.centre)} mm"
        rule = f"{named} lies {'partly ' if size.prod() else ''}outside the scan"
        raise InputError("scan", rule, "Give a place inside: --at X,Y,Z or --roi, in RAS+ mm")
    box = tuple(slice(int(a), int(b)) for a, b in zip(inside_low, inside_high, strict=True))
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ inside_low + affine[:3, 3]
    meta = deepcopy(dict(scan.meta)) | {"spatial_shape": size}
    image = MetaTensor(scan[(slice(None), *box)].as_tensor().clone(), meta=meta)
    image.affine = torch.as_tensor(moved)
    return Part(place, image, (box[0], box[1], box[2]))


class Uprightd(MapTransform, InvertibleTransform):
    """Resamples a part of a scan to the directions of its place, if these are turned.

    A network sees structures as upright as it has learned them, however the head lay. Cubic
    splines blur less than linear interpolation.

    Args:
        keys: Keys of the images (C, X, Y, Z).
        part: Part of the scan that the images are of.
        spacing: Spacing in mm along the axes of the place; empty: that of the scan along its finest
            axis. With the spacing of the network's grid nothing is resampled twice.
    """

    def __init__(self, keys: KeysCollection, part: Part, spacing: Sequence[float] = ()) -> None:
        super().__init__(keys)
        self.place = part.place
        affine = np.asarray(part.image.affine, dtype=np.float64)
        self.turned = part.place.turned_in(affine)
        finest = np.linalg.norm(affine[:3, :3], axis=0).min()
        self.spacing = np.asarray(spacing or [finest] * 3, dtype=np.float64)
        self.resample = SpatialResample(mode=CUBIC, padding_mode="border")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The images on the place's own grid."""
        found = dict(data)
        if not self.turned:
            return found
        for key in self.key_iterator(found):
            image = found[key]
            size = np.ceil(np.asarray(self.place.size) / self.spacing).astype(int)
            affine = np.eye(4)
            affine[:3, :3] = self.place.axes * self.spacing
            affine[:3, 3] = self.place.centre - affine[:3, :3] @ ((size - 1) / 2.0)
            turned = self.resample(image, torch.as_tensor(affine), size.tolist())
            turned.affine = torch.as_tensor(_upright(affine, self.place))
            found[key] = turned
        return found

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Maps on the place's grid, back on that of the part of the scan."""
        found = dict(data)
        if self.turned:
            for key in self.key_iterator(found):
                image = found[key]
                affine = np.asarray(image.affine, dtype=np.float64).copy()
                affine[:3] = self.place.axes @ affine[:3]
                image.affine = torch.as_tensor(affine)
                found[key] = self.resample.inverse(image)
        return found


def _angle(rotation: NDArray[np.float64]) -> float:
    """Angle of a rotation (3, 3), in radians."""
    return float(np.arccos(np.clip((np.trace(rotation) - 1.0) / 2.0, -1.0, 1.0)))


def _upright(affine: NDArray[np.float64], place: Place) -> NDArray[np.float64]:
    """The affine as if the place were not turned, so that no later transform sees its axes."""
    turned = affine.copy()
    turned[:3] = place.axes.T @ affine[:3]
    return turned


def _told(point: Sequence[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in point)
