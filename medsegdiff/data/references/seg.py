"""Segments of a DICOM SEG on an image's grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom.decoder import decoding, stored_values
from medsegdiff.data.references.opening import check_frame_of_reference

TOLERANCE = 0.1
"""Greatest distance of a pixel from its voxel, in voxels."""
_STEP_TOLERANCE = 0.01  # of the distance of neighbours
_LPS_TO_RAS = np.array([[-1.0], [-1.0], [1.0]])


class Seg:
    """A SEG: BINARY, FRACTIONAL (inside from half of the greatest value on), or LABELMAP.

    Args:
        dataset: Content of the file, from pydicom.
        path: Path of the file, for messages.
        image: Grid of the image, three axes.
        frame_of_reference: FrameOfReferenceUID of the image; empty where it is not known.

    Raises:
        InputError: the frame of reference is another, or slices are further apart than the image's.
    """

    def __init__(self, dataset: Any, path: Path, image: Geometry, frame_of_reference: str) -> None:
        own = str(dataset.get("FrameOfReferenceUID") or "")
        check_frame_of_reference(own, frame_of_reference, path)
        self.dataset, self.path, self.image = dataset, path, image
        self.shape = (image.shape[0], image.shape[1], image.shape[2])
        file = Path(dataset.filename)
        with decoding() as decoder:
            self._pixels = stored_values(dataset, file, decoder)
        self._kind = str(dataset.SegmentationType).upper()
        self._to_voxel = np.linalg.inv(image.affine)
        self._check_slices()

    def present(self) -> list[tuple[int, str]]:
        """Number and label of each segment."""
        return [(int(s.SegmentNumber), str(s.SegmentLabel)) for s in self.dataset.SegmentSequence]

    def mask(self, number: int) -> NDArray[np.bool_]:
        """Mask (*shape) of a segment.

        Raises:
            InputError: the segment's pixels do not lie on voxels of the image.
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
        orientation = self._group(group, "PlaneOrientationSequence").ImageOrientationPatient
        along_row, along_column = np.array(orientation, float).reshape(2, 3)
        spacing = self._group(group, "PixelMeasuresSequence").PixelSpacing
        between_rows, between_columns = map(float, spacing)
        lps = np.stack([along_column * between_rows, along_row * between_columns], axis=1)
        steps = self._to_voxel[:3, :3] @ (lps * _LPS_TO_RAS)
        exact = self._origin(group)[:, None] + steps @ np.stack([rows, columns])
        voxels = np.rint(exact).astype(np.intp)
        from_pixel_to_pixel = np.abs(np.abs(steps).max(axis=0) - 1.0).max()
        if from_pixel_to_pixel > _STEP_TOLERANCE or np.abs(exact - voxels).max() > TOLERANCE:
            raise self._other_grid("its pixels do not lie on the voxels of its image")
        if voxels.min() < 0 or (voxels.max(axis=1) >= self.shape).any():
            rule = "marks places outside of its image"
            remedy = "Give the image it was drawn on, with all its slices"
            raise InputError(self.path, rule, remedy)
        return voxels

    def _origin(self, group: Any) -> NDArray[np.float64]:
        """Voxel coordinates (3,) of a frame's first pixel."""
        lps = np.array(self._group(group, "PlanePositionSequence").ImagePositionPatient, float)
        place = self._to_voxel[:3, :3] @ (lps * _LPS_TO_RAS[:, 0]) + self._to_voxel[:3, 3]
        return np.asarray(place)

    def _check_slices(self) -> None:
        """Refuse slices further apart than the image's, between which the mask would have gaps.

        The frames alone are no proof, since those without mask are left out. The distance in the
        header is none either, since some programs copy it. Both together are.
        """
        groups = self.dataset.PerFrameFunctionalGroupsSequence
        measures = self._group(groups[0], "PixelMeasuresSequence")
        stated = float(measures.get("SpacingBetweenSlices") or 0.0)
        origins = np.unique([np.round(self._origin(group), 2) for group in groups], axis=0)
        if stated <= 0 or len(origins) < 2:
            return
        apart = np.diff(origins, axis=0) @ np.linalg.inv(self._to_voxel)[:3, :3].T
        nearest = np.linalg.norm(apart, axis=1).min()
        steps = np.abs(np.diff(origins, axis=0)).max(axis=1).min()
        if abs(nearest - stated) < _STEP_TOLERANCE * stated and steps > 1 + TOLERANCE:
            raise self._other_grid(f"its slices are {stated:g} mm apart, not as its image's")

    def _other_grid(self, rule: str) -> InputError:
        remedy = "Give the image it was drawn on, or resample it and convert it to NIfTI"
        return InputError(self.path, f"{rule}: it has another grid", remedy)
