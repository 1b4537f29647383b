"""Maps on the grid of their image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.other_models.case_images import on_grid_of


def _ramp(geometry: Geometry) -> np.ndarray:
    """A probability that is linear in the world's x, y and z, and its complement."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij"), -1)
    world = index @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]
    p = 0.3 + world @ np.array([0.01, 0.015, 0.008])
    return np.stack([1.0 - p, p]).astype(np.float32)


def test_linear_maps_are_the_same_on_another_grid() -> None:
    own = Geometry((16, 14, 12), np.diag([1.5, 1.5, 1.5, 1.0]))
    turned = np.diag([-1.0, 1.2, 0.8, 1.0])
    turned[:3, 3] = [15.0, 3.0, 4.0]
    image = Geometry((10, 9, 8), turned)
    found = on_grid_of(_ramp(own), own, image, Path("a.npz"), resample=True)
    np.testing.assert_allclose(found, _ramp(image), atol=1e-4)


def test_background_lies_where_the_maps_end() -> None:
    own = Geometry((6, 6, 6), np.eye(4))
    image = Geometry((20, 20, 20), np.eye(4))
    maps = np.stack([np.zeros((6, 6, 6)), np.ones((6, 6, 6))]).astype(np.float32)
    found = on_grid_of(maps, own, image, Path("a.npz"), resample=True)
    np.testing.assert_allclose(found[1][:6, :6, :6], 1.0, atol=1e-5)
    np.testing.assert_allclose(found[0][8:, 8:, 8:], 1.0)
    np.testing.assert_allclose(found.sum(axis=0), 1.0, atol=1e-5)


def test_other_grids_are_refused_where_nothing_resampled_them() -> None:
    own = Geometry((6, 6, 6), np.eye(4))
    maps = _ramp(own)
    for image, rule in (
        (Geometry((7, 6, 6), np.eye(4)), r"has shape \(6, 6, 6\), but its image has \(7, 6, 6\)"),
        (Geometry((6, 6, 6), np.diag([1.0, 1.0, 1.5, 1.0])), "voxels from its image"),
    ):
        with pytest.raises(InputError, match=rule):
            on_grid_of(maps, own, image, Path("a.npz"), resample=False)
    assert on_grid_of(maps, own, own, Path("a.npz"), resample=False) is maps
