"""Places that a user gives: texts, markups files of 3D Slicer, and masks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.locating.given import GivenPlaces, read_box, read_points

SIZE = (36.0, 52.0, 38.0)


def markups(path: Path, world: str, *markups: Mapping[str, object]) -> str:
    content = {"markups": [{"coordinateSystem": world, **one} for one in markups]}
    path.write_text(json.dumps(content))
    return str(path)


def fiducials(*places: tuple[str, list[float]]) -> dict[str, object]:
    points = [{"label": name, "position": place} for name, place in places]
    return {"type": "Fiducial", "controlPoints": points}


@pytest.mark.parametrize(
    ("world", "stored"), [("RAS", [26.0, -20.0, -14.0]), ("LPS", [-26.0, 20.0, -14.0])]
)
def test_points_of_slicer_in_either_world(world: str, stored: list[float], tmp_path: Path) -> None:
    path = markups(tmp_path / "p.mrk.json", world, fiducials(("F 1", stored), ("F 1", stored)))
    assert read_points(path) == {"F-1": (26.0, -20.0, -14.0), "F-1-2": (26.0, -20.0, -14.0)}


def test_points_of_slicer_s_older_table(tmp_path: Path) -> None:
    path = tmp_path / "p.fcsv"
    row = "1,-26,20,-14,0,0,0,1,1,1,0,left,,"
    path.write_text(f"# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n{row}\n")
    assert read_points(str(path)) == {"left": (26.0, -20.0, -14.0)}
    path.write_text(f"# CoordinateSystem = 0\n{row}\n")
    assert read_points(str(path)) == {"left": (-26.0, 20.0, -14.0)}


def test_a_turned_box_of_slicer(tmp_path: Path) -> None:
    turned = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    roi = {"type": "ROI", "center": [-1.0, -2.0, 3.0], "size": [10, 20, 30], "orientation": turned}
    place = read_box(markups(tmp_path / "r.mrk.json", "LPS", roi))
    assert place.centre == (1.0, 2.0, 3.0) and np.linalg.det(place.axes) == pytest.approx(1.0)
    assert np.array(place.box_mm) == pytest.approx(np.array([[-9, -3, -12], [11, 7, 18]]))


def test_a_mask_is_enclosed(tmp_path: Path) -> None:
    values = np.zeros((10, 12, 14), dtype=np.uint8)
    values[2:5, 3:7, 4:9] = 1
    affine = np.diag([-2.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = (20.0, 0.0, 5.0)
    path = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(values, affine), path)
    place = read_box(str(path))
    assert place.box_mm == [[11.0, 2.5, 8.5], [17.0, 6.5, 13.5]]
    nib.save(nib.Nifti1Image(np.zeros_like(values), affine), path)
    with pytest.raises(InputError, match="a mask without a voxel"):
        read_box(str(path))


def test_two_corners_in_any_order() -> None:
    assert read_box("5,6,7,-5,0,1").box_mm == [[-5.0, 0.0, 1.0], [5.0, 6.0, 7.0]]


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "1,2,nan", "1;2;3"])
def test_a_point_that_cannot_be_understood(text: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be understood.*--at 26,-20,-14"):
        read_points(text)


@pytest.mark.parametrize("text", ["1,2,3", "0,0,0,0,1,1", "1,2,3,4,5,x"])
def test_a_box_that_cannot_be_understood(text: str) -> None:
    with pytest.raises(UsageError, match="--roi 8,-46"):
        read_box(text)


@pytest.mark.parametrize("content", ["", "[]", '{"markups": 3}', '{"markups": []}'])
def test_a_markups_file_without_what_is_asked_for(content: str, tmp_path: Path) -> None:
    path = tmp_path / "p.mrk.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"p\.mrk\.json"):
        read_points(str(path))
    with pytest.raises(InputError, match=r"p\.mrk\.json"):
        read_box(str(path))


def test_an_unknown_world(tmp_path: Path) -> None:
    path = markups(tmp_path / "p.mrk.json", "IJK", fiducials(("a", [1.0, 2.0, 3.0])))
    with pytest.raises(InputError, match="neither LPS nor RAS"):
        read_points(path)


def test_either_a_point_or_a_box() -> None:
    for at, roi in ((None, None), ("1,2,3", "1,2,3,4,5,6")):
        with pytest.raises(UsageError, match="need one of them"):
            GivenPlaces(SIZE, at, roi)
    with pytest.raises(UsageError, match="place_mm"):
        GivenPlaces((), at="1,2,3")
    one, two = GivenPlaces(SIZE, at="1,2,3"), GivenPlaces(SIZE, at="1,2,3;4,5,6")
    assert [place.name for place in one.places] == [""]
    assert [place.name for place in two.places] == ["point-1", "point-2"]
