from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from medsegdiff.data.public.contours import fill


@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_matplotlib_off_the_edge(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
    radii = rng.uniform(8, 28, 12)
    points = np.rint(np.stack([30 + radii * np.cos(angles), 40 + radii * np.sin(angles)], 1))
    corners = [(float(x), float(y)) for x, y in points]
    outer = fill(corners, (64, 80), with_outline=True)
    inner = fill(corners, (64, 80), with_outline=False)
    centres = np.stack(np.meshgrid(np.arange(64), np.arange(80), indexing="ij"), -1).reshape(-1, 2)
    within = Polygon([*corners, corners[0]], closed=True).contains_points(centres).reshape(64, 80)
    edge = outer & ~inner
    assert inner.any() and edge.any() and not (inner & ~outer).any()
    np.testing.assert_array_equal(inner[~edge], within[~edge])


def test_a_single_point() -> None:
    assert np.argwhere(fill([(2, 1)], (5, 4), with_outline=True)).tolist() == [[2, 1]]
    assert not fill([(2, 1)], (5, 4), with_outline=False).any()


def test_outline_beyond_the_image_is_cut() -> None:
    mask = fill([(-3, -3), (2, -3), (2, 2), (-3, 2)], (6, 6), with_outline=True)
    expected = np.zeros((6, 6), dtype=bool)
    expected[:3, :3] = True
    np.testing.assert_array_equal(mask, expected)
