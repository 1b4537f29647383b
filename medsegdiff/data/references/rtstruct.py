"""Regions of an RTSTRUCT on an image's grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.references.opening import check_frame_of_reference

TOLERANCE = 0.25
"""Greatest distance of a contour's points from the plane of a slice, in slices."""
TIE = 1e-6
"""Shift of all contours, in voxels, by which a voxel's centre on a line falls to one side."""
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")

Floats = NDArray[np.float64]


class RtStruct:
    """An RTSTRUCT: contours, slice by slice.

    A voxel is inside if its centre is within an odd number of a region's contours of its slice, so
    that a contour within another cuts a hole. A centre on the line itself is inside at the lower
    edge of a region along each axis, and outside at the upper edge. Slices without a contour stay
    empty: nothing is interpolated.

    Args:
        dataset: Content of the file, from pydicom.
        path: Path of the file, for messages.
        image: Grid of the image, three axes.
        frame_of_reference: FrameOfReferenceUID of the image; empty where it is not known.
    """

    def __init__(self, dataset: Any, path: Path, image: Geometry, frame_of_reference: str) -> None:
        self.path, self.frame_of_reference = path, frame_of_reference
        self.shape = (image.shape[0], image.shape[1], image.shape[2])
        self._to_voxel = np.linalg.inv(image.affine)
        self._regions = {int(r.ROINumber): r for r in dataset.StructureSetROISequence}
        self._contours: dict[int, list[Any]] = {number: [] for number in self._regions}
        for item in dataset.get("ROIContourSequence") or ():
            number = int(item.ReferencedROINumber)
            self._contours.setdefault(number, []).extend(item.get("ContourSequence") or ())

    def present(self) -> list[tuple[int, str]]:
        """Number and name of each region."""
        return [(number, str(r.ROIName)) for number, r in self._regions.items()]

    def mask(self, number: int) -> NDArray[np.bool_]:
        """Mask (*shape) of a region.

        Raises:
            InputError: the frame of reference is another, or a contour is not closed, or does not
                lie in a slice of the image.
        """
        own = str(self._regions[number].get("ReferencedFrameOfReferenceUID") or "")
        check_frame_of_reference(own, self.frame_of_reference, self.path)
        contours = [self._voxels(contour, number) for contour in self._contours[number]]
        contours = list({points.tobytes(): points for points in contours}.values())  # once each
        found = np.zeros(self.shape, dtype=np.bool_)
        if not contours:
            return found
        axis = int(np.argmin(sum(np.ptp(points, axis=0) for points in contours)))
        slices = np.moveaxis(found, axis, 0)
        for points in contours:
            index = self._slice_of(points[:, axis], len(slices), number)
            _flip_inside(slices[index], np.delete(points, axis, axis=1))
        return found

    def _voxels(self, contour: Any, number: int) -> Floats:
        """A contour's points (n, 3) in voxels, rounded to a millionth."""
        kind = str(contour.get("ContourGeometricType"))
        if kind not in _CLOSED:
            rule = f"{self._name(number)} has contours of type {kind}, which enclose nothing"
            raise InputError(self.path, rule, "Choose a region with closed contours")
        lps = np.array(contour.ContourData, dtype=np.float64).reshape(-1, 3)
        if not np.isfinite(lps).all():
            raise ValueError("ContourData must be finite")
        ras = lps * (-1.0, -1.0, 1.0)
        voxels = ras @ self._to_voxel[:3, :3].T + self._to_voxel[:3, 3]
        return np.asarray(np.round(voxels, 6), dtype=np.float64)

    def _slice_of(self, along: Floats, count: int, number: int) -> int:
        """The slice that a contour lies in, from its coordinates across the slices."""
        index = int(np.rint(along.mean()))
        if np.abs(along - index).max() > TOLERANCE:
            rule = f"{self._name(number)} has a contour that does not lie in a slice of its image"
            raise InputError(self.path, rule, "Give the image it was drawn on")
        if not 0 <= index < count:
            rule = f"{self._name(number)} has a contour where its image has no slice"
            raise InputError(self.path, rule, "Give the image it was drawn on, with all its slices")
        return index

    def _name(self, number: int) -> str:
        return f"region {number} {str(self._regions[number].ROIName)!r}"


def _flip_inside(plane: NDArray[np.bool_], points: Floats) -> None:
    """Flip, in place, the pixels of a plane whose centres are within a closed contour (n, 2)."""
    from matplotlib.path import Path as Outline  # takes a while to import, and few need it

    if len(points) < 3:
        return
    low = np.maximum(np.ceil(points.min(axis=0)).astype(int), 0)
    high = np.minimum(np.floor(points.max(axis=0)).astype(int) + 1, plane.shape)
    if (low >= high).any():
        return
    grid = np.mgrid[low[0] : high[0], low[1] : high[1]]
    inside = Outline(points - TIE).contains_points(grid.reshape(2, -1).T)
    window = plane[low[0] : high[0], low[1] : high[1]]
    window ^= inside.reshape(window.shape)
