"""Smooth random deformations of images and masks together, so that they are of nobody."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monai.transforms import MapTransform, Rand2DElasticd, Rand3DElasticd


def random_deformation(
    keys: Sequence[str],
    spatial_dims: int,
    *,
    displacement: float = 1.5,
    smoothness: float = 6.0,
    rotation: float = 0.2,
    scaling: float = 0.15,
    translation: float = 2.0,
    prob: float = 1.0,
    modes: Sequence[str] = ("bilinear", "nearest"),
) -> MapTransform:
    """MONAI's random affine and elastic deformation, told how far voxels move.

    Args:
        keys: of the maps (C, *spatial) that are deformed alike.
        spatial_dims: 2 or 3.
        displacement: standard deviation of the elastic part along each axis, in voxels.
        smoothness: standard deviation, in voxels, of the kernel that makes it smooth.
        rotation: greatest angle about each axis, in radians.
        scaling: greatest change of size along each axis, as a fraction.
        translation: greatest shift along each axis, in voxels.
        prob: of a deformation at all.
        modes: interpolation of each key.

    Raises:
        ValueError: for other than two or three axes.
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3. Got {spatial_dims}.")
    # Uniform noise in [-1, 1] has variance 1/3; the kernel leaves (2 sqrt(pi) sigma)^-1 an axis.
    left = math.sqrt((2.0 * math.sqrt(math.pi) * smoothness) ** -spatial_dims / 3.0)
    magnitude = displacement / left
    common = {
        "keys": list(keys),
        "prob": prob,
        "rotate_range": [rotation] * (3 if spatial_dims == 3 else 1),
        "scale_range": [scaling] * spatial_dims,
        "translate_range": [translation] * spatial_dims,
        "mode": list(modes),
        "padding_mode": "border",
    }
    if spatial_dims == 3:
        return Rand3DElasticd(
            sigma_range=(smoothness, smoothness), magnitude_range=(0.0, 2.0 * magnitude), **common
        )
    # In two dimensions MONAI draws noise on a coarse grid and interpolates it: that is its smoothness.
    return Rand2DElasticd(
        spacing=(2.0 * smoothness,) * 2, magnitude_range=(0.0, 2.0 * displacement), **common
    )
