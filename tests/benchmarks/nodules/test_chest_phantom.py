"""The generated chest holds as much nodule as it should, whatever its grid."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.nodules.chest_phantom import LUNG_HU, TISSUE_HU, Nodule, chest

CENTRE = (-75.0, 10.0, 3.0)


@pytest.mark.parametrize(("pixel_mm", "slice_mm"), [(0.5, 1.0), (0.9, 2.5)])
@pytest.mark.parametrize("diameter", [4.0, 12.0])
def test_the_volume_is_that_of_the_ball(pixel_mm: float, slice_mm: float, diameter: float) -> None:
    shape = (round(24 / pixel_mm), round(24 / pixel_mm), round(24 / slice_mm))
    image, affine = chest((Nodule(CENTRE, diameter),), pixel_mm, slice_mm, shape, CENTRE, vessels=0)
    share = (image - LUNG_HU) / (TISSUE_HU - LUNG_HU)
    volume = share.sum() * pixel_mm**2 * slice_mm
    assert volume == pytest.approx(math.pi * diameter**3 / 6, rel=0.08, abs=3.0)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    weight = np.where(share > 0.3, share, 0.0)
    middle = (index * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum()
    np.testing.assert_allclose(affine[:3, :3] @ middle + affine[:3, 3], CENTRE, atol=0.3)


def test_vessels_are_in_the_lungs_and_seeded() -> None:
    def part(vessels: int, seed: int = 0) -> np.ndarray:
        image = chest((), 1.0, 4.0, (110, 80, 8), (-75.0, 10.0, 0.0), vessels, seed)[0]
        return np.asarray(image)

    assert ((part(60) > -300) & (part(0) < -600)).sum() > 100
    assert np.array_equal(part(60), part(60)) and not np.array_equal(part(60), part(60, seed=1))
