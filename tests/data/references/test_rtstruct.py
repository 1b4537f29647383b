"""Regions of an RTSTRUCT are what shapely says is within their contours, on the image's grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import shapely
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.references import Structures, read_structures
from tests.dicom_sources import (
    LAYOUTS,
    Layout,
    frame_of_reference_of,
    laid_out,
    to_lps,
    write_rtstruct,
    write_series,
)
from tests.dicom_sources import affine as oblique

SHAPE = (40, 30, 5)
LIVER = Structures({1: ("liver",)})
GRID = Geometry(SHAPE, oblique())


def blob(centre: tuple[float, float], radius: float, seed: int) -> NDArray[np.float64]:
    """A star-shaped outline (n, 2) in voxels, no point of it on a voxel's centre."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 24))
    radii = radius * rng.uniform(0.7, 1.3, 24)
    return np.array(centre) + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def in_slice(outline: NDArray[Any], k: float) -> NDArray[np.float64]:
    """(n, 3) voxel coordinates of an outline (n, 2) in a slice."""
    return np.column_stack([outline, np.full(len(outline), k)])


def box(low: float, high: float) -> NDArray[np.float64]:
    return np.array([[low, low], [high, low], [high, high], [low, high]])


def read(folder: Path, *contours: NDArray[Any], grid: Geometry = GRID, **more: Any) -> Any:
    """The mask of contours, in voxels of ``GRID``, on a grid."""
    points = [to_lps(GRID, contour) for contour in contours]
    file = write_rtstruct(folder / "rt.dcm", {"Liver": points}, "1.2.3", **more)
    return read_structures(file, grid, LIVER)


def within(*outlines: NDArray[Any]) -> NDArray[np.bool_]:
    """(columns, rows) by shapely: inside an odd number of outlines."""
    area = shapely.Polygon(outlines[0])
    for outline in outlines[1:]:
        area = shapely.symmetric_difference(area, shapely.Polygon(outline))
    column, row = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.asarray(shapely.contains_xy(area, column, row))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_is_what_shapely_says_whatever_the_axes(tmp_path: Path, layout: Layout) -> None:
    outer, hole = blob((18, 14), 10, 1), blob((19, 13), 4, 2)
    second, other = blob((30, 22), 4, 3), blob((20, 15), 8, 4)
    contours = [in_slice(o, 1) for o in (outer, hole, second)] + [in_slice(other, 3)]
    expected = np.zeros(SHAPE, bool)
    expected[..., 1], expected[..., 3] = within(outer, hole, second), within(other)
    assert expected.sum() > 300
    ours = read(tmp_path, *contours, grid=laid_out(GRID, layout))
    axes = [axis for axis, _ in layout]
    flips = tuple(slice(None, None, sign) for _, sign in layout)
    np.testing.assert_array_equal(ours, expected.transpose(axes)[flips])


def test_an_island_in_a_hole_and_a_keyhole(tmp_path: Path) -> None:
    nested = [in_slice(box(1.5 + d, 20.5 - d), 2) for d in (0, 3, 6)]
    column, row = np.mgrid[: SHAPE[0], : SHAPE[1]]

    def square(low: int, high: int) -> NDArray[np.bool_]:
        return (column >= low) & (column <= high) & (row >= low) & (row <= high)

    ring = square(2, 20) & ~square(5, 17)
    np.testing.assert_array_equal(read(tmp_path, *nested)[..., 2], ring | square(8, 14))
    outer, inner = box(1.5, 20.5), box(4.5, 17.5)[::-1]
    channel = np.concatenate([outer, outer[:1], inner[-1:], inner, outer[:1]])
    np.testing.assert_array_equal(read(tmp_path, in_slice(channel, 2))[..., 2], ring)


def test_centres_on_the_line_are_in_at_the_lower_edges(tmp_path: Path) -> None:
    """So that regions which share an edge share no voxel, and miss none."""
    left = np.array([[3, 3], [9, 3], [9, 9], [3, 9]], float)
    right = left + np.array([6, 0])
    regions = {"liver": [in_slice(left, 0)], "kidney": [in_slice(right, 0)]}
    points = {name: [to_lps(GRID, c) for c in contours] for name, contours in regions.items()}
    file = write_rtstruct(tmp_path / "rt.dcm", points, "1.2.3")
    labels = read_structures(file, GRID, Structures({1: ("liver",), 2: ("kidney",)}))
    expected = np.zeros(SHAPE[:2], int)
    expected[3:9, 3:9], expected[9:15, 3:9] = 1, 2
    np.testing.assert_array_equal(labels[..., 0], expected)


def test_a_contour_that_is_listed_twice_counts_once(tmp_path: Path) -> None:
    outline = in_slice(blob((18, 14), 8, 5), 2)
    once = read(tmp_path, outline)
    np.testing.assert_array_equal(read(tmp_path, outline, outline), once)
    assert once.any()


def test_parts_outside_of_the_image_are_cut_off(tmp_path: Path) -> None:
    outline = blob((0, 14), 9, 6)
    np.testing.assert_array_equal(read(tmp_path, in_slice(outline, 2))[..., 2], within(outline))


def test_a_region_without_contours_is_empty(tmp_path: Path) -> None:
    assert not read(tmp_path).any()


@pytest.mark.parametrize(
    ("slices", "rule"),
    [(5.0, "where its image has no slice"), (-1.0, "has no slice"), (1.5, "not lie in a slice")],
)
def test_contours_of_no_slice_are_refused(tmp_path: Path, slices: float, rule: str) -> None:
    with pytest.raises(InputError, match=f"region 11 'Liver' has a contour .*{rule}"):
        read(tmp_path, in_slice(box(3.5, 9.5), slices))


def test_a_contour_across_slices_is_refused(tmp_path: Path) -> None:
    tilted = np.column_stack([box(3.5, 9.5), [1, 1, 2, 2]])
    with pytest.raises(InputError, match="does not lie in a slice"):
        read(tmp_path, tilted)


def test_open_contours_and_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contours of type POINT, which enclose nothing"):
        read(tmp_path, in_slice(box(3.5, 9.5), 1), kind="POINT")
    assert read(tmp_path, in_slice(box(3.5, 9.5), 1), kind="CLOSEDPLANAR_XOR").any()


def test_the_frame_of_reference_has_to_be_the_images(tmp_path: Path) -> None:
    image = write_series(tmp_path / "series")
    points = {"liver": [to_lps(image, in_slice(box(0.5, 3.5), 1))]}
    own = write_rtstruct(tmp_path / "own.dcm", points, frame_of_reference_of(image))
    assert read_structures(own, image, LIVER).sum() == 9
    other = write_rtstruct(tmp_path / "other.dcm", points, "1.2.3")
    with pytest.raises(InputError, match="another frame of reference"):
        read_structures(other, image, LIVER)


def test_other_names_are_listed(tmp_path: Path) -> None:
    file = write_rtstruct(tmp_path / "rt.dcm", {"BODY": [], "Kidney": []}, "1.2.3")
    with pytest.raises(InputError, match="it has: 11 'BODY', 12 'Kidney'"):
        read_structures(file, GRID, LIVER)


def test_damaged_contours_are_told(tmp_path: Path) -> None:
    read(tmp_path, in_slice(box(3.5, 9.5), 1))
    ds = pydicom.dcmread(tmp_path / "rt.dcm")
    ds.ROIContourSequence[0].ContourSequence[0].ContourData = ["1", "2"]
    ds.save_as(tmp_path / "rt.dcm")
    with pytest.raises(InputError, match=r"rt\.dcm: its content cannot be understood"):
        read_structures(tmp_path / "rt.dcm", GRID, LIVER)
