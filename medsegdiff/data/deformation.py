"""Smooth random deformations of images and masks together, so that they show no real anatomy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.transforms import RandomizableTransform
from monai.transforms.utils import create_rotate, create_scale, create_translate
from torch import Tensor


class RandomDeformationd(RandomizableTransform):
    """Random affine and elastic deformation, the same for all keys.

    It does the same as MONAI's ``Rand3DElasticd``, in a tenth of the time: displacements are drawn
    at control points and interpolated, where MONAI filters noise in every voxel. Places outside the
    image take the value of its border.

    Args:
        keys: Keys of the maps (C, *spatial) that are deformed alike; absent keys are ignored.
        spatial_dims: Number of spatial axes, 2 or 3.
        displacement: Standard deviation of the elastic part along each axis, in voxels, on average
            over calls; in each call it is uniform from 0 to twice that.
        spacing: Distance of the control points, in voxels.
        rotation: Greatest angle about each axis, in radians.
        scaling: Greatest change of size along each axis, as a fraction.
        translation: Greatest shift along each axis, in voxels.
        prob: Probability that a call deforms at all.
        modes: Interpolation of each key: ``bilinear`` (trilinear in 3D) or ``nearest``.

    Raises:
        ValueError: ``spatial_dims`` is neither 2 nor 3, or keys and modes differ in number.
    """

    def __init__(
        self,
        keys: Sequence[str],
        spatial_dims: int,
        displacement: float = 1.5,
        spacing: float = 10.0,
        rotation: float = 0.2,
        scaling: float = 0.15,
        translation: float = 2.0,
        prob: float = 1.0,
        modes: Sequence[str] = ("bilinear", "nearest"),
    ) -> None:
        super().__init__(prob)
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3. Got {spatial_dims}.")
        if len(keys) != len(modes):
            raise ValueError(f"modes must be one for each of {list(keys)}. Got {list(modes)}.")
        self.modes, self.spatial_dims = dict(zip(keys, modes, strict=True)), spatial_dims
        self.displacement, self.spacing = displacement, spacing
        self.rotation, self.scaling, self.translation = rotation, scaling, translation

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The item with its maps (C, *spatial) deformed; integer maps keep their type."""
        item = dict(data)
        maps = {key: torch.as_tensor(item[key]) for key in self.modes if key in item}
        self.randomize(None)
        if not maps or not self._do_transform:
            return item
        size = next(iter(maps.values())).shape[1:]
        places = self._places(size)
        for key, values in maps.items():
            item[key] = resampled(values, places, self.modes[key])
        return item

    def _places(self, size: Sequence[int]) -> Tensor:
        """Place (d, *size) from which each voxel's value is taken, in voxels."""
        axes = [torch.arange(n) - (n - 1) / 2.0 for n in size]
        centred = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        matrix = self._affine()
        moved = torch.einsum("ij,j...->i...", matrix[:-1, :-1], centred)
        shift = matrix[:-1, -1].view(-1, *[1] * len(size))
        middle = torch.tensor([(n - 1) / 2.0 for n in size]).view_as(shift)
        return moved + shift + middle + self._elastic(size)

    def _affine(self) -> Tensor:
        d = self.spatial_dims
        angles = self.R.uniform(-self.rotation, self.rotation, 3 if d == 3 else 1)
        scales = 1.0 + self.R.uniform(-self.scaling, self.scaling, d)
        shifts = self.R.uniform(-self.translation, self.translation, d)
        parts = (
            create_translate(d, shifts, backend="numpy"),
            create_rotate(d, angles, backend="numpy"),
            create_scale(d, scales, backend="numpy"),
        )
        return torch.tensor(parts[0] @ parts[1] @ parts[2], dtype=torch.float32)

    def _elastic(self, size: Sequence[int]) -> Tensor:
        """Displacement (d, *size) in voxels, of the standard deviation drawn for this call."""
        points = [max(2, math.ceil(n / self.spacing) + 1) for n in size]
        drawn = torch.tensor(self.R.standard_normal((1, len(size), *points)), dtype=torch.float32)
        # Linear interpolation leaves 2/3 of the variance along each axis, on average.
        deviation = self.R.uniform(0.0, 2.0 * self.displacement) * 1.5 ** (len(size) / 2.0)
        mode = "bilinear" if len(size) == 2 else "trilinear"
        return deviation * F.interpolate(drawn, tuple(size), mode=mode, align_corners=True)[0]


def resampled(values: Tensor, places: Tensor, mode: str) -> Tensor:
    """Values (C, *size) of a map (C, *spatial) at places (d, *size), in voxels.

    Places outside the map take the value of its border.

    Args:
        values: Map (C, *spatial).
        places: Coordinates (d, *size) of each place, in voxels.
        mode: Interpolation, ``bilinear`` (trilinear in 3D) or ``nearest``.
    """
    last = torch.tensor([max(n - 1, 1) for n in values.shape[1:]], dtype=torch.float32)
    unit = 2.0 * places / last.view(-1, *[1] * (places.ndim - 1)) - 1.0
    grid = unit.flip(0).movedim(0, -1)[None]  # grid_sample wants the last axis first
    found = F.grid_sample(
        values[None].float(), grid, mode=mode, padding_mode="border", align_corners=True
    )[0]
    return found.round().to(values.dtype) if not values.is_floating_point() else found
