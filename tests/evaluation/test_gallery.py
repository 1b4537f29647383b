"""Small multiples: outlines around the mask, the slice with the errors, a crop of the marks."""

from __future__ import annotations

import base64
import io
import re
from itertools import pairwise

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from medsegdiff.evaluation.gallery import (
    LARGEST,
    Picture,
    _reduced,
    _resize,
    _through,
    _window,
    small_multiples,
)
from medsegdiff.viz.outlines import outline
from medsegdiff.viz.pictures import COLOURS
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


def test_all_panels_of_a_case_in_their_order(make_case_view: MakeCaseView) -> None:
    seg = np.zeros((30, 30), np.uint8)
    seg[5:15, 5:15], seg[15:25, 5:15] = 1, 2
    raters = [np.roll(seg, i, axis=1) for i in range(6)]
    shown = make_case_view(
        seg,
        annotations=raters,
        reference=np.roll(seg, 1, axis=1),
        members=np.stack([seg] * 2),
        variance=np.zeros(seg.shape, np.float32),
    )
    picture = small_multiples(shown, (1, 2))
    first, second = COLOURS[:2]
    masks = [("mask", first), ("mask", second)]
    raters_edge = [("reference", first), ("reference", second)]
    assert [
        (panel.title, panel.bitmap, [(one.style, one.colour) for one in panel.layers])
        for panel in picture.panels
    ] == [
        ("Image", "image", []),
        *((f"Rater {i}", "image", masks) for i in (1, 2, 3, 4)),
        ("Ensemble", "image", masks + raters_edge),
        ("Member 1", "image", masks),
        ("Member 2", "image", masks),
        ("Mean", "mean", raters_edge),
        ("Variance", "variance", [("edge", first), ("edge", second)]),
    ]
    assert picture.where == ""
    ensemble = {panel.title: panel for panel in picture.panels}["Ensemble"]
    moved = [box(layer.path) for layer in ensemble.layers]
    assert [b[2] - a[2] for a, b in zip(moved[:2], moved[2:], strict=True)] == [-1, -1]


def test_colours_begin_again_after_the_last(make_case_view: MakeCaseView) -> None:
    values = tuple(range(1, len(COLOURS) + 2))
    seg = np.repeat(np.array(values, np.uint8), 4)[:, None].repeat(4, axis=1)
    (ensemble,) = (
        p for p in small_multiples(make_case_view(seg), values).panels if p.title[0] == "E"
    )
    colours = [layer.colour for layer in ensemble.layers if layer.style == "mask"]
    assert colours == [*COLOURS, COLOURS[0]]


@pytest.mark.parametrize(
    ("mm", "through"),
    [
        ({0: 1.0, 1: 1.0, 2: 1.0}, 2),
        ({0: 1.0, 1: 1.5, 2: 1.0}, 2),
        ({0: 1.0, 1: 1.6, 2: 1.0}, 1),
        ({0: 3.1, 1: 2.0, 2: 1.0}, 0),
        ({0: 3.0, 1: 2.0, 2: 1.0}, 2),
    ],
)
def test_slices_more_than_half_as_thick_again_are_looked_through(
    mm: dict[int, float], through: int
) -> None:
    assert _through(mm) == through


def marked(shape: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    plane = np.zeros(shape, np.uint8)
    plane[rows, columns] = 1
    return plane


@pytest.mark.parametrize(
    ("rows", "columns", "spacing", "window"),
    [
        # 20 rows and 35 % of it on each side: 34, around the middle at 50 and 60
        (slice(40, 60), slice(55, 65), (1.0, 1.0), ((33, 67), (43, 77))),
        # small ones have 24 pixels of the finer axis
        (slice(50, 52), slice(50, 52), (1.0, 1.0), ((39, 63), (39, 63))),
        (slice(50, 52), slice(50, 52), (1.0, 0.5), ((45, 57), (39, 63))),
        # no further than the border
        (slice(0, 20), slice(90, 100), (1.0, 1.0), ((0, 34), (66, 100))),
        # as large as the plane at most
        (slice(0, 100), slice(0, 100), (1.0, 1.0), ((0, 100), (0, 100))),
        # 10 rows of 4 mm: a square of 68 mm
        (slice(40, 50), slice(40, 50), (4.0, 1.0), ((36, 53), (11, 79))),
    ],
)
def test_the_crop_is_a_square_around_the_marks(
    rows: slice, columns: slice, spacing: tuple[float, float], window: tuple[tuple[int, int], ...]
) -> None:
    plane = marked((100, 100), rows, columns)
    found = _window([np.zeros_like(plane), plane], [], spacing)
    for part, (start, stop) in zip(found, window, strict=True):
        # a middle between two pixels may go to either
        assert part.stop - part.start == stop - start and abs(part.start - start) <= 1


def test_where_nothing_is_marked_the_members_decide() -> None:
    nothing, member = np.zeros((100, 100), np.uint8), marked((100, 100), slice(0, 5), slice(0, 5))
    assert _window([nothing], [nothing, member], (1.0, 1.0)) == (slice(0, 24), slice(0, 24))
    assert _window([member], [nothing + 1], (1.0, 1.0)) == (slice(0, 24), slice(0, 24))
    assert _window([nothing], [nothing], (1.0, 1.0)) == (slice(None), slice(None))
    assert _window([nothing], [], (1.0, 1.0)) == (slice(None), slice(None))


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((192, 100), (192, 100)),
        ((384, 100), (192, 50)),
        ((1, 1000), (1, 192)),
        ((96, 288), (64, 192)),
    ],
)
def test_bitmaps_keep_their_shape_up_to_the_limit(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    assert _reduced(shape) == size


def test_values_are_averaged_and_labels_are_not() -> None:
    plane = np.arange(16, dtype=np.float64).reshape(4, 4)
    np.testing.assert_allclose(_resize(plane, (2, 2)), [[2.5, 4.5], [10.5, 12.5]])
    np.testing.assert_allclose(_resize(plane, (2, 4)), (plane[::2] + plane[1::2]) / 2)
    colours = np.stack([plane, 2 * plane, -plane], axis=-1)
    small = _resize(colours, (2, 2))
    np.testing.assert_allclose(small[..., 1], [[5, 9], [21, 25]])
    assert small.shape == (2, 2, 3)
    labels = np.array([[1, 1, 7, 7], [1, 1, 7, 7], [3, 3, 0, 0], [3, 3, 0, 0]], np.uint8)
    found = _resize(labels, (2, 2))
    assert found.dtype == np.uint8 and found.tolist() == [[1, 7], [3, 0]]
    assert _resize(plane, (4, 4)) is plane


def test_the_grey_values_fill_the_range_and_nan_is_black(make_case_view: MakeCaseView) -> None:
    seg = marked((24, 24), slice(2, 22), slice(2, 22))
    image = np.linspace(-100.0, 300.0, 576).reshape(24, 24).astype(np.float32)
    image[3, 4] = np.nan
    picture = small_multiples(make_case_view(seg, image=image, axes=""), (1,))
    assert picture.bitmaps["image"].startswith("data:image/png;base64,")
    shown = bitmap(picture, "image")[..., 0].T.astype(float)
    assert shown[3, 4] == 0
    known = np.isfinite(image)
    expected = np.clip((image - np.nanmin(image)) / 400.0, 0, 1) * 255
    assert np.abs(shown - expected)[known].max() < 5 and shown.max() == 255


def test_the_mean_mixes_the_colours_of_the_classes(make_case_view: MakeCaseView) -> None:
    seg = marked((24, 24), slice(0, 24), slice(0, 24))
    seg[:, 12:] = 2
    shown = make_case_view(seg, axes="")
    shown.mean[1][:], shown.mean[2][:] = 0.5, 0.25
    found = bitmap(small_multiples(shown, (1, 2)), "mean")[3, 4]
    codes = np.array([[int(c[j : j + 2], 16) for j in (1, 3, 5)] for c in COLOURS[:2]])
    np.testing.assert_allclose(found, 0.5 * codes[0] + 0.25 * codes[1], atol=1)
    del shown.mean[1]
    found = bitmap(small_multiples(shown, (1, 2)), "mean")[3, 4]
    np.testing.assert_allclose(found, 0.25 * codes[1], atol=1)
    shown.mean.clear()
    assert "mean" not in small_multiples(shown, (1, 2)).bitmaps


@pytest.mark.parametrize(("values", "top"), [((1,), 0.25), ((1, 2), 0.5)])
def test_the_scale_of_variance_ends_at_what_is_possible(
    make_case_view: MakeCaseView, values: tuple[int, ...], top: float
) -> None:
    seg = marked((24, 24), slice(0, 24), slice(0, 24))
    variance = np.zeros(seg.shape, np.float32)
    variance[:8], variance[8:16] = top, top / 2
    shown = small_multiples(make_case_view(seg, variance=variance, axes=""), values)
    found = bitmap(shown, "variance")
    magma = colormaps["magma"](np.array([255, 128, 0]))[:, :3] * 255
    np.testing.assert_allclose(found[4, [2, 10, 20]], magma, atol=3)
    assert "variance" not in small_multiples(make_case_view(seg, axes=""), values).bitmaps


def test_the_place_of_a_slice_is_counted_from_one(make_case_view: MakeCaseView) -> None:
    seg = np.zeros(SHAPE, np.uint8)
    seg[3, 4, 5] = 1
    thick = {0: "sagittal slice 4 of 40", 1: "coronal slice 5 of 30", 2: "axial slice 6 of 20"}
    for axis, where in thick.items():
        affine = np.diag([2.0 if axis == a else 1.0 for a in range(3)] + [1.0])
        picture = small_multiples(make_case_view(seg, affine=affine), (1,))
        assert picture.where == where
        # the crop is a square in mm: as many mm wide as high
        assert picture.aspect == pytest.approx(1.0, abs=0.25)


def test_a_plane_keeps_its_ratio_in_millimetres(make_case_view: MakeCaseView) -> None:
    empty = np.zeros((40, 20), np.uint8)
    shown = make_case_view(empty, affine=np.diag([1.0, 3.0, 1.0, 1.0]))
    picture = small_multiples(shown, (1,))
    assert (picture.columns, picture.rows) == (40, 20)  # rows are along the second axis
    assert picture.aspect == pytest.approx(40 / 60)
    photograph = small_multiples(
        make_case_view(empty, affine=np.diag([1.0, 3.0, 1.0, 1.0]), axes=""), (1,)
    )
    assert photograph.aspect == pytest.approx(40 / 60)
