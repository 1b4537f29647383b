"""A slice's picture: its pixels in place, borders of masks on them, text beside them."""

from __future__ import annotations

import numpy as np
import pytest

from medsegdiff.viz.slice_picture import Line, Outline, magnification, slice_picture

RED = (255, 0, 0)


@pytest.mark.parametrize("size", [(40, 30), (600, 300)])
def test_pixels_are_kept_but_for_the_border_of_the_mask(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, (*size, 3), dtype=np.uint8)
    mask = np.zeros(size, bool)
    mask[10:30, 5:25] = True
    times = magnification(*size)
    picture = slice_picture(image, [Outline(mask, RED)], [Line("text")])
    rows, columns = size[0] * times, size[1] * times
    drawn = (picture[:rows, :columns] == RED).all(axis=-1)
    large = image.repeat(times, 0).repeat(times, 1)
    np.testing.assert_array_equal(picture[:rows, :columns][~drawn], large[~drawn])
    inside = mask.repeat(times, 0).repeat(times, 1)
    assert drawn[10 * times, 5 * times : 25 * times].all()  # the whole upper border
    assert not drawn[~inside].any()
    assert not drawn[13 * times : 27 * times, 8 * times : 22 * times].any()


def test_a_dashed_line_has_gaps_and_text_has_room() -> None:
    mask = np.ones((64, 20), bool)
    image = np.zeros((64, 20, 3), np.uint8)
    lines = [Line("a" * 80, RED), Line("b")]
    solid = slice_picture(image, [Outline(mask, RED)], lines)
    dashed = slice_picture(image, [Outline(mask, RED, dashed=True)], lines)
    rows = 64 * magnification(64, 20)
    count = [np.count_nonzero((one[:rows] == RED).all(axis=-1)) for one in (solid, dashed)]
    assert 0.4 * count[0] < count[1] < 0.6 * count[0]
    assert solid[rows:].any() and not solid[rows:, -3:].any()
