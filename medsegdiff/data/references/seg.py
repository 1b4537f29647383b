"""Segments of a DICOM SEG on an image's grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.data.references.files import check_frame_of_reference
from medsegdiff.types import Geometry, InputError

TOLERANCE = 0.1
"""Greatest distance of a pixel from the voxel that it stands for, in voxels."""


class Seg:
    """A SEG: BINARY, FRACTIONAL (inside from half of the greatest value on), or LABELMAP.

    Args:
        dataset: the file, by pydicom.
        path: for messages.
        image: the grid, three axes.
        frame_of_reference: of the image; empty where it is not known.

    Raises:
        InputError: coordinates of another system, or no frames with a place.
    """

    def __init__(self, dataset: Any, path: Path, image: Geometry, frame_of_reference: str) -> None:
        own = str(dataset.get("FrameOfReferenceUID") or "")
        check_frame_of_reference(own, frame_of_reference, path)
        self.dataset, self.path, self.image = dataset, path, image
        self.shape = (image.shape[0], image.shape[1], image.shape[2])
        size = (-1, int(dataset.Rows), int(dataset.Columns))
        self._pixels = dataset.pixel_array.reshape(size)
        self._kind = str(dataset.SegmentationType).upper()
        self._to_voxel = np.linalg.inv(image.affine)

    def present(self) -> list[tuple[int, str]]:
        """Number and label of each segment."""
        return [(int(s.SegmentNumber), str(s.SegmentLabel)) for s in self.dataset.SegmentSequence]

    def mask(self, number: int) -> NDArray[np.bool_]:
        """(*shape) where a segment is.

        Raises:
            InputError: its pixels do not lie on voxels of the image.
        """
        found = np.zeros(self.shape, dtype=np.bool_)
        groups = self.dataset.PerFrameFunctionalGroupsSequence
        for frame, group in zip(self._pixels, groups, strict=True):
            if self._kind != "LABELMAP" and self._number_of(group) != number:
                continue
            rows, columns = np.nonzero(self._inside(frame, number))
            if len(rows):
                found[tuple(self._voxels(group, rows, columns))] = True
        return found

    def _number_of(self, group: Any) -> int:
        identification = self._group(group, "SegmentIdentificationSequence")
        return int(identification.ReferencedSegmentNumber)

    def _inside(self, frame: NDArray[Any], number: int) -> NDArray[np.bool_]:
        if self._kind == "LABELMAP":
            return np.asarray(frame == number)
        if self._kind == "FRACTIONAL":
            return np.asarray(frame >= int(self.dataset.MaximumFractionalValue) / 2)
        return np.asarray(frame > 0)

    def _group(self, frame: Any, name: str) -> Any:
        """A functional group of a frame, which may be shared by all (PS3.3, C.7.6.16)."""
        shared = self.dataset.SharedFunctionalGroupsSequence[0]
        return (frame if name in frame else shared)[name].value[0]

    def _voxels(
        self, group: Any, rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> NDArray[np.intp]:
        """Indices (3, n) of the voxels at some pixels of a frame (PS3.3, C.7.6.2.1.1)."""
        position = np.array(self._group(group, "PlanePositionSequence").ImagePositionPatient, float)
        orientation = self._group(group, "PlaneOrientationSequence").ImageOrientationPatient
        along_row, along_column = np.array(orientation, float).reshape(2, 3)
        spacing = self._group(group, "PixelMeasuresSequence").PixelSpacing
        between_rows, between_columns = map(float, spacing)
        steps = np.stack([along_column * between_rows, along_row * between_columns], axis=1)
        lps = position[:, None] + steps @ np.stack([rows, columns])
        ras = np.stack([-lps[0], -lps[1], lps[2], np.ones(len(rows))])
        exact = (self._to_voxel @ ras)[:3]
        voxels = np.rint(exact).astype(np.intp)
        if np.abs(exact - voxels).max() > TOLERANCE:
            rule = "its pixels do not lie on the voxels of its image: it has another grid"
            raise InputError(self.path, rule, "Give the image it was drawn on, or resample it")
        if voxels.min() < 0 or (voxels.max(axis=1) >= self.shape).any():
            rule = "marks places outside of its image"
            remedy = "Give the image it was drawn on, with all its slices"
            raise InputError(self.path, rule, remedy)
        return voxels
