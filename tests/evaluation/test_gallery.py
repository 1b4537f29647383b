"""Small multiples: outlines around the mask, the slice with the errors, a crop of the marks."""

from __future__ import annotations

import base64
import io
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from medsegdiff.evaluation.gallery import LARGEST, Picture, small_multiples
from medsegdiff.viz.outlines import outline
from tests.evaluation.conftest import MakeCaseView

SHAPE = (40, 30, 20)


def loops(path: str) -> list[list[tuple[int, int]]]:
    """Corners of each closed loop of a path, the first one again at the end."""
    found = []
    for text in path.split("z")[:-1]:
        x, y = map(int, re.findall(r"-?\d+", text.split("h")[0].split("v")[0]))
        corners = [(x, y)]
        for way, length in re.findall(r"([hv])(-?\d+)", text):
            x, y = (x + int(length), y) if way == "h" else (x, y + int(length))
            corners.append((x, y))
        found.append([*corners, corners[0]])
    return found


def bitmap(picture: Picture, name: str) -> np.ndarray:
    content = base64.b64decode(picture.bitmaps[name].split(",")[1])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def box(mask_path: str) -> tuple[int, int, int, int]:
    """Left, right, upper and lower end of a path."""
    corners = np.array([corner for loop in loops(mask_path) for corner in loop])
    (left, upper), (right, lower) = corners.min(axis=0), corners.max(axis=0)
    return int(left), int(right), int(upper), int(lower)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_outlines_enclose_just_the_mask(share: float, seed: int) -> None:
    """Green's theorem: the loops' signed areas sum to the pixels; each step lies on an edge."""
    inside = np.random.default_rng(seed).random((9, 12)) < share
    area, length = 0, 0
    for loop in loops(outline(inside)):
        for (x, y), (right, lower) in pairwise(loop):
            assert x == right or y == lower
            area += x * lower - right * y
            length += abs(right - x) + abs(lower - y)
    assert area == 2 * inside.sum()
    padded = np.pad(inside, 1).astype(int)
    assert length == np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()


def test_the_slice_with_the_errors_is_shown(make_case_view: MakeCaseView) -> None:
    seg = np.zeros(SHAPE, np.uint8)
    seg[10:20, 10:20, 2:12] = 1
    reference = seg.copy()
    reference[12:15, 12:18, 9] = 0
    picture = small_multiples(make_case_view(seg, reference=reference), (1,))
    assert picture.where == "axial slice 10 of 20"
    assert [panel.title for panel in picture.panels] == ["Image", "Reference", "Ensemble", "Mean"]
    assert len(loops(picture.panels[1].layers[0].path)) == 2  # with its hole
    styles = [layer.style for layer in picture.panels[2].layers]
    assert styles == ["mask", "reference"]


def test_thick_slices_are_shown_as_they_were_taken(make_case_view: MakeCaseView) -> None:
    seg = np.zeros(SHAPE, np.uint8)
    seg[10:20, 10:20, 2:12] = 1
    affine = np.diag([1.0, 5.0, 1.0, 1.0])
    assert small_multiples(make_case_view(seg, affine=affine), (1,)).where.startswith("coronal")
    stack = small_multiples(make_case_view(seg, affine=affine, stack=True), (1,))
    assert stack.where.startswith("axial")


@pytest.mark.parametrize("axes", ["RAS", "LAS", "RPS", "LPI"])
def test_the_patients_right_is_on_the_left_and_front_on_top(
    make_case_view: MakeCaseView, axes: str
) -> None:
    seg = np.zeros(SHAPE, np.uint8)
    seg[-8:-4, -9:-2, -3] = 1  # right, in front, above
    turned = np.flip(seg, tuple(a for a in range(3) if axes[a] not in "RAS"))
    picture = small_multiples(make_case_view(turned, axes=axes), (1,))
    left, right, upper, lower = box(picture.panels[1].layers[0].path)
    assert (right - left, lower - upper) == (4, 7)
    assert left + right < picture.columns  # as near to the border of the image as the crop allows
    assert upper + lower < picture.rows
    assert left == 4 and upper == 2
    kept = slice(-3, None) if axes[2] == "S" else 2
    assert picture.where == f"axial slice {18 if kept != 2 else 3} of 20"


def test_the_crop_holds_what_raters_and_ensemble_mark(make_case_view: MakeCaseView) -> None:
    seg, other = np.zeros((2, 100, 100), np.uint8)
    seg[40:44, 40:44], other[44:50, 50:60] = 1, 1
    stray = np.zeros((1, 100, 100), np.uint8)
    stray[0, 0, 0] = 1
    shown = make_case_view(seg, annotations=[seg, other], members=stray)
    picture = small_multiples(shown, (1,))
    assert picture.rows == picture.columns == pytest.approx(20 * 1.7, abs=1)
    panels = {panel.title: panel for panel in picture.panels}
    assert len(panels["Rater 1"].layers) == len(panels["Rater 2"].layers) == 1
    assert panels["Member 1: nothing"].layers == ()


def test_members_are_chosen_from_the_smallest_to_the_largest(make_case_view: MakeCaseView) -> None:
    members = np.zeros((9, 20, 20), np.uint8)
    for i, size in enumerate((5, 1, 9, 3, 8, 2, 7, 4, 6)):
        members[i, 5 : 5 + size, 5:9] = 1
    picture = small_multiples(make_case_view(members[0], members=members), (1,))
    titles = [panel.title for panel in picture.panels if panel.title.startswith("Member")]
    assert titles == ["Member 2", "Member 8", "Member 9", "Member 3"]


def test_bitmaps_are_small_and_right(make_case_view: MakeCaseView) -> None:
    seg = np.zeros((600, 900), np.uint8)
    seg[10:590, 10:890] = 1
    variance = np.zeros(seg.shape, np.float32)
    variance[300:, :] = 0.25
    picture = small_multiples(make_case_view(seg, variance=variance, axes=""), (1,))
    assert max(picture.rows, picture.columns) == LARGEST
    assert picture.aspect == pytest.approx(600 / 900, rel=0.05)  # a photograph: first axis right
    shown = bitmap(picture, "variance")
    assert shown.shape == (picture.rows, picture.columns, 3)
    assert shown[50, 10].max() < 10 and shown[50, -10].min() > 150
    np.testing.assert_array_equal(bitmap(picture, "mean")[90, 60], [0x56, 0xB4, 0xE9])


def test_a_photograph_keeps_its_colours(make_case_view: MakeCaseView) -> None:
    seg = np.zeros((60, 50), np.uint8)
    seg[20:30, 20:30] = 1
    image = np.zeros((60, 50, 3), np.float32)
    image[..., 0] = 200.0
    picture = small_multiples(make_case_view(seg, image=image, axes=""), (1,))
    assert picture.bitmaps["image"].startswith("data:image/jpeg")
    np.testing.assert_allclose(bitmap(picture, "image")[5, 5], [200, 0, 0], atol=3)


def test_an_empty_case_can_be_shown(make_case_view: MakeCaseView) -> None:
    picture = small_multiples(make_case_view(np.zeros(SHAPE, np.uint8)), (1,))
    assert [panel.title for panel in picture.panels] == [
        "Image",
        "Reference: nothing",
        "Ensemble: nothing",
    ]
    assert (picture.columns, picture.rows) == SHAPE[:2]


def test_a_mesh_is_filled_and_not_outlined(make_case_view: MakeCaseView) -> None:
    seg = np.zeros((150, 150), np.uint8)
    seg[::2, ::3] = 1
    panels = {p.title: p for p in small_multiples(make_case_view(seg), (1,)).panels}
    assert [layer.style for layer in panels["Ensemble"].layers] == ["fill"]
    assert panels["Mean"].layers == ()
