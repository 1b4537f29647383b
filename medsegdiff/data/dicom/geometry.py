"""Position and order of the frames of a series (DICOM PS3.3, C.7.6.2.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import LPS_TO_RAS
from medsegdiff.data.dicom.frames import Frame, vectors
from medsegdiff.data.dicom.series import Series, apart
from medsegdiff.data.dicom.split import ORIENTATION_TOLERANCE

POSITION_TOLERANCE = 0.05
"""Greatest deviation of a slice from even spacing, as a fraction of that spacing."""
_DECIMALS = (0, 1, 2)  # of millimetres, to which positions may be rounded
_COARSEST = 0.25  # greatest rounding that is told from a gap, as a fraction of the spacing
_TILT_DEGREES = 0.1  # a smaller tilt is rounding


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in their order along the normal, cross product of row and column direction.

    Attributes:
        order: Number of the frame of each slice, (slices,).
        along: Position (slices,) of each slice on the normal, in mm, ascending.
        origin: Position (3,) of the first voxel, LPS+ mm.
        axes: Matrix (3, 3); its columns are a step to the next column, row and slice, LPS+ mm.
        even: Whether the slices are evenly spaced, by the last of ``axes``; otherwise that axis is
            1 mm long along the normal, and slices lie at ``along``.
        tilt: Angle between the normal and the line on which the slices lie, in degrees.
        rounding: Unit in mm to which positions are rounded, if the slices are evenly spaced but
            for that; else 0.
    """

    order: NDArray[np.intp]
    along: NDArray[np.float64]
    origin: NDArray[np.float64]
    axes: NDArray[np.float64]
    even: bool
    tilt: float
    rounding: float = 0.0

    @property
    def tilted(self) -> bool:
        """Whether the slices are shifted against each other: the grid is sheared."""
        return self.tilt > _TILT_DEGREES

    @property
    def affine(self) -> NDArray[np.float64]:
        """Affine (4, 4), voxel (column, row, slice) -> RAS+ mm."""
        lps = np.eye(4)
        lps[:3, :3], lps[:3, 3] = self.axes, self.origin
        return np.asarray(LPS_TO_RAS @ lps)


def stack_of(frames: Sequence[Frame], series: Series) -> Stack:
    """Order and position of a series' frames, evenly spaced or not.

    Raises:
        InputError: frames differ in size, orientation or pixel spacing, two lie at one place, or
            they do not lie on one straight line.
        ValueError: a field has no usable value.
    """
    directions, (between_rows, between_columns) = _uniform(frames, series)
    positions = vectors(frames, "ImagePositionPatient", 3)
    normal = np.cross(directions[0], directions[1])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    along = positions @ normal
    line, even, tilt, rounding = normal, True, 0.0, 0.0
    if len(frames) == 1:
        thickness = float(frames[0].get("SliceThickness") or 1.0)
        if not 0 < thickness < np.inf:
            raise ValueError(f"SliceThickness is {thickness}")
        line = normal * thickness
    else:
        _check_apart(along, series)
        line = (positions[-1] - positions[0]) / (along[-1] - along[0])
        even = uneven_gap(along) is None
        rounding = 0.0 if even else _rounding(positions, along, normal)
        even = even or rounding > 0
        _check_straight(positions, along, line, rounding, series)
        tilt = float(np.degrees(np.arccos(min(1.0, 1.0 / float(np.linalg.norm(line))))))
        line = line * ((along[-1] - along[0]) / (len(along) - 1) if even else 1.0)
    axes = np.stack([directions[0] * between_columns, directions[1] * between_rows, line], axis=1)
    return Stack(order, along, positions[0], axes, even, tilt, rounding)


def uneven_gap(along: NDArray[np.float64]) -> int | None:
    """Number of the slice before the first uneven gap, from positions (slices,) in mm, or None."""
    gaps = np.diff(along)
    typical = float(np.median(gaps))
    uneven = np.flatnonzero(np.abs(gaps - typical) > POSITION_TOLERANCE * typical)
    if len(uneven):
        return int(uneven[0])
    drift = np.abs(along - np.linspace(along[0], along[-1], len(along)))
    return int(drift.argmax()) if drift.max() > POSITION_TOLERANCE * typical else None


def _rounding(
    positions: NDArray[np.float64], along: NDArray[np.float64], normal: NDArray[np.float64]
) -> float:
    """The unit in mm to which even positions were rounded, if that is all that makes them uneven.

    Each then lies within half a unit, along each axis, of a place at even distances.

    Args:
        positions: Positions (slices, 3).
        along: Positions (slices,) on the normal, in mm, ascending.
        normal: Normal (3,) of the slices.
    """
    index = np.arange(len(along))
    apart = np.abs(along - np.polyval(np.polyfit(index, along, 1), index)).max()
    spacing = float(along[-1] - along[0]) / (len(along) - 1)
    for decimals in _DECIMALS:
        unit = 10.0**-decimals
        if np.allclose(positions, positions.round(decimals), rtol=0, atol=1e-6):
            reach = 0.75 * unit * float(np.abs(normal).sum())
            return unit if apart <= reach and unit <= _COARSEST * spacing else 0.0
    return 0.0


def _uniform(
    frames: Sequence[Frame], series: Series
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column direction (2, 3), and row and column spacing (2,), equal in all slices."""
    sizes = {frame.size for frame in frames}
    if len(sizes) > 1:
        raise InputError(series, f"slices differ in size: {sorted(sizes)}", apart("size"))
    orientations = vectors(frames, "ImageOrientationPatient", 6)
    if np.ptp(orientations, axis=0).max() > ORIENTATION_TOLERANCE:
        rule = "slices differ in orientation (a localiser, or several stacks in one series)"
        raise InputError(series, rule, apart("orientation"))
    directions = orientations[0].reshape(2, 3)
    if not np.allclose(directions @ directions.T, np.eye(2), atol=ORIENTATION_TOLERANCE):
        rule = "row and column directions are not at right angles and of length 1"
        raise InputError(series, rule, "Give the original series")
    spacings = vectors(frames, "PixelSpacing", 2)
    if np.ptp(spacings, axis=0).max() > 1e-4 or spacings.min() <= 0:
        found = np.unique(spacings, axis=0).tolist()
        rule = f"pixel spacing must be positive and equal in all slices, not {found[:3]}"
        raise InputError(series, rule, apart("spacing"))
    return directions, spacings[0]


def _check_apart(along: NDArray[np.float64], series: Series) -> None:
    gaps = np.diff(along)
    if gaps.min() < max(1e-3, POSITION_TOLERANCE * float(np.median(gaps))):
        rule = (
            "two slices lie at one place, and neither echo, image type, b-value nor time tells "
            "the volumes apart"
        )
        raise InputError(series, rule, apart("volume"))


def _check_straight(
    positions: NDArray[np.float64],
    along: NDArray[np.float64],
    line: NDArray[np.float64],
    rounding: float,
    series: Series,
) -> None:
    straight = positions[0] + (along - along[0])[:, None] * line
    typical = float(np.median(np.diff(along)))
    if np.linalg.norm(positions - straight, axis=1).max() > max(
        POSITION_TOLERANCE * typical, 1.5 * rounding
    ):
        rule = "slices do not lie on one straight line"
        raise InputError(series, rule, apart("stack"))
