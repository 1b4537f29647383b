"""Pictures: the right way round, the right proportions, the right slice."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from matplotlib.figure import Figure

from medsegdiff.viz.pictures import save_png, three_planes

SHAPE, SPACING = (12, 16, 8), (1.0, 0.5, 3.0)


@pytest.fixture
def volume() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, mask of two classes, and variance, in RAS order."""
    rng = np.random.default_rng(0)
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:5, 3:8, 2:5] = 1
    mask[4:7, 8:12, 4] = 2
    return rng.random(SHAPE), mask, rng.random(SHAPE) * 0.25


def panels(figure: Figure) -> np.ndarray:
    """What is drawn first in each panel, (rows, columns) of it, without the colour bar."""
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    return np.array([np.asarray(image) for image in images], dtype=object)


def test_planes_go_through_the_slices_that_show_most_of_every_class(
    volume: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    image, mask, variance = volume
    figure = three_planes(image, mask, variance, SPACING)
    axial, coronal, sagittal = (panels(figure)[i] for i in (2, 5, 8))
    # Upper row first: anterior or superior. Left column first: the patient's right, or anterior.
    np.testing.assert_allclose(axial.astype(float), variance[::-1, ::-1, 4].T)
    assert coronal.shape == (8, 12)
    np.testing.assert_allclose(sagittal.astype(float), variance[4, ::-1, ::-1].T)


def test_the_patients_right_is_on_the_left_and_anterior_on_top() -> None:
    variance = np.zeros(SHAPE)
    mask = np.zeros(SHAPE, np.uint8)
    mask[-1, -1, -1] = 1  # the most right, anterior and superior voxel
    variance[-1, -1, -1] = 0.2
    figure = three_planes(np.zeros(SHAPE), mask, variance, SPACING, axes="RAS")
    for i in (2, 5, 8):
        plane = panels(figure)[i].astype(float)
        assert plane[0, 0] == pytest.approx(0.2)
        assert plane.sum() == pytest.approx(0.2)
    letters = [text.get_text() for text in figure.axes[0].texts]
    assert letters == ["R", "L", "P", "A"]
    assert [text.get_text() for text in figure.axes[6].texts] == ["A", "P", "I", "S"]


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SRA", "PIR", "ASL"])
def test_the_order_of_the_arrays_axes_does_not_matter(
    volume: tuple[np.ndarray, np.ndarray, np.ndarray], axes: str
) -> None:
    image, mask, variance = volume
    ras = nib.orientations.axcodes2ornt("RAS")
    turn = nib.orientations.ornt_transform(ras, nib.orientations.axcodes2ornt(axes))
    turned = tuple(nib.orientations.apply_orientation(array, turn) for array in volume)
    spacing = [SPACING["RLAPSI".index(letter) // 2] for letter in axes]
    expected = panels(three_planes(image, mask, variance, SPACING, axes="RAS"))
    found = panels(three_planes(turned[0], turned[1], turned[2], spacing, axes=axes))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.astype(float), b.astype(float))


def test_a_millimetre_is_as_long_in_every_direction(
    volume: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    figure = three_planes(*volume, SPACING)
    sizes = np.array(SHAPE) * SPACING
    for row, (horizontal, vertical) in enumerate(((0, 1), (0, 2), (1, 2))):
        panel = figure.axes[3 * row]
        left, right, lower, upper = panel.images[0].get_extent()
        assert right - left == pytest.approx(sizes[horizontal])
        assert upper - lower == pytest.approx(sizes[vertical])
        width, height = panel.get_position().size * figure.get_size_inches()
        (x0, x1), (y0, y1) = panel.get_xlim(), panel.get_ylim()
        assert width / (x1 - x0) == pytest.approx(height / (y1 - y0))
        assert left >= x0 - 1e-9 and right <= x1 + 1e-9
        assert lower >= y0 - 1e-9 and upper <= y1 + 1e-9


def test_a_photograph_is_drawn_in_colour_and_upright() -> None:
    photograph = np.zeros((10, 6, 3), np.uint8)
    photograph[9, 0] = (255, 0, 0)  # last column, first row
    figure = three_planes(photograph, np.zeros((10, 6), np.uint8), None, (1.0, 1.0))
    shown = panels(figure)[0].astype(float)
    assert shown.shape == (6, 10, 3)
    np.testing.assert_allclose(shown[0, 9], (1, 0, 0))
    assert shown.sum() == pytest.approx(1.0)


def test_empty_masks_show_where_the_variance_is_highest() -> None:
    mask, variance = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE)
    variance[3, 10, 6] = 0.1
    figure = three_planes(np.zeros(SHAPE), mask, variance, SPACING, reference=mask)
    assert all(panels(figure)[i].max() == pytest.approx(0.1) for i in (2, 5, 8))
    assert "7 of 8" in figure.axes[0].get_ylabel()


def test_legend_names_classes_and_reference(
    volume: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    image, mask, variance = volume
    labels = {1: "Anterior", 2: "Posterior"}
    figure = three_planes(image, mask, variance, SPACING, reference=mask, labels=labels)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["Anterior", "Posterior", "reference (outline)"]


def test_png_is_1280_pixels_wide_and_complete(
    volume: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    figure = three_planes(*volume, SPACING, title="case")
    save_png(figure, tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert int.from_bytes(data[16:20], "big") == 1280
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_large_images_are_drawn_by_some_of_their_pixels_and_let_go(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((2100, 1500), np.float32)
    mask = np.zeros(image.shape, np.uint8)
    mask[600:1200, 300:900] = 1
    figure = three_planes(image, mask, image / 4, (1.0, 1.0))
    drawn = [np.asarray(one.get_array()) for axes in figure.axes for one in axes.images]
    assert all(max(one.shape[:2]) <= 1024 for one in drawn[:4])
    np.testing.assert_allclose(drawn[-1], image.T[::2, ::3] / 4)
    assert all(one.get_extent()[1] == 1050.0 for one in figure.axes[0].images)
    save_png(figure, tmp_path / "a.png")
    assert figure.axes == []  # else the arrays live until the next full garbage collection


def test_wrong_shapes_are_refused(volume: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    image, mask, variance = volume
    with pytest.raises(ValueError, match="variance must have"):
        three_planes(image, mask, variance[1:], SPACING)
    with pytest.raises(ValueError, match="image must have"):
        three_planes(image[1:], mask, variance, SPACING)
    with pytest.raises(ValueError, match="spacing"):
        three_planes(image, mask, variance, (1.0, 1.0))
    with pytest.raises(ValueError, match="directions"):
        three_planes(image, mask, variance, SPACING, axes="RRS")


@pytest.mark.parametrize(
    ("labels", "heading"),
    [({1: "a"}, "Variance"), ({1: "a", 2: "b"}, "Variance, summed over classes")],
)
def test_a_sum_over_classes_is_called_one(
    volume: tuple[np.ndarray, np.ndarray, np.ndarray], labels: dict[int, str], heading: str
) -> None:
    figure = three_planes(*volume, SPACING, labels=labels)
    assert figure.axes[2].get_title() == heading
