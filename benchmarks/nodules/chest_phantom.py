"""A generated CT of a chest: body, lungs, spine, vessels, and round nodules of known diameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

Floats = NDArray[np.float64]
Point = tuple[float, float, float]

AIR_HU, LUNG_HU, FAT_HU, TISSUE_HU, BONE_HU = -1000.0, -850.0, -100.0, 40.0, 500.0
BLUR_MM = 0.5
"""Standard deviation of the scanner's point spread, in plane."""
NOISE_HU = 25.0
NOISE_MM = 0.6
"""Correlation of the noise, in plane."""
SUBSLICES = 4
"""Number of planes that a slice is the mean of."""


@dataclass(frozen=True)
class Nodule:
    """A ball of soft tissue.

    Attributes:
        centre: Centre in mm of the phantom's world, whose origin is the middle of the chest.
        diameter: Diameter in mm.
    """

    centre: Point
    diameter: float


@dataclass(frozen=True)
class Vessel:
    """A straight tube of soft tissue, from one point to another in mm, with its radius in mm."""

    start: Point
    end: Point
    radius: float


def chest(
    nodules: tuple[Nodule, ...],
    pixel_mm: float,
    slice_mm: float,
    shape: tuple[int, int, int],
    centre: Point = (0.0, 0.0, 0.0),
    vessels: int = 60,
    seed: int = 0,
) -> tuple[NDArray[np.int16], Floats]:
    """Image (X, Y, slices) in HU, and affine (4, 4) from voxel index to RAS+ mm.

    Args:
        nodules: Nodules to put in.
        pixel_mm: Size of a pixel.
        slice_mm: Distance and thickness of slices.
        shape: Numbers of columns, rows and slices.
        centre: Middle of the image in mm.
        vessels: Number of vessels of each lung.
        seed: Seed of vessels and noise.
    """
    rng = np.random.default_rng(seed)
    tubes = [tube for side in (-1.0, 1.0) for tube in _tree(side, vessels, rng)]
    step = np.array([pixel_mm, pixel_mm, slice_mm])
    origin = np.asarray(centre) - step * (np.array(shape) - 1) / 2.0
    x, y = (origin[a] + pixel_mm * np.arange(shape[a]) for a in (0, 1))
    image = np.empty(shape)
    for k in range(shape[2]):
        heights = origin[2] + slice_mm * (k + (np.arange(SUBSLICES) + 0.5) / SUBSLICES - 0.5)
        image[..., k] = np.mean([_plane(x, y, z, nodules, tubes) for z in heights], axis=0)
    noise = gaussian_filter(rng.normal(size=shape), (NOISE_MM / pixel_mm, NOISE_MM / pixel_mm, 0))
    image += NOISE_HU * noise / noise.std()
    affine = np.diag([*step, 1.0])
    affine[:3, 3] = origin
    return np.rint(image).clip(-1024, 3071).astype(np.int16), affine


def _plane(
    x: Floats, y: Floats, z: float, nodules: tuple[Nodule, ...], tubes: list[Vessel]
) -> Floats:
    """HU (X, Y) of the plane at a height, already blurred in plane."""
    xs, ys = np.meshgrid(x, y, indexing="ij", sparse=True)
    plane = np.full((len(x), len(y)), AIR_HU)
    for hu, middle, radii in (
        (FAT_HU, (0.0, 0.0), (165.0, 120.0)),
        (TISSUE_HU, (0.0, 0.0), (150.0, 105.0)),
        (LUNG_HU, (-75.0, 10.0), (58.0, 80.0)),
        (LUNG_HU, (75.0, 10.0), (58.0, 80.0)),
        (BONE_HU, (0.0, -75.0), (20.0, 20.0)),
    ):
        far = np.hypot((xs - middle[0]) / radii[0], (ys - middle[1]) / radii[1])
        _put(plane, (1.0 - far) * min(radii), hu)
    lung = np.hypot((np.abs(xs) - 75.0) / 58.0, (ys - 10.0) / 80.0) < 1.0
    for tube in tubes:
        ends = np.array([tube.start, tube.end])
        near = _near(x, y, z, ends.min(axis=0), ends.max(axis=0), tube.radius)
        if near is not None:
            depth = tube.radius - _from_line(xs[near[0]], ys[:, near[1]], z, *ends)
            _put(plane[near], np.where(lung[near], depth, -np.inf), TISSUE_HU)
    for nodule in nodules:
        centre, radius = np.array(nodule.centre), _sharp_radius(nodule.diameter / 2.0)
        near = _near(x, y, z, centre, centre, radius)
        if near is not None:
            depth = radius - _from_line(xs[near[0]], ys[:, near[1]], z, centre, centre)
            _put(plane[near], depth, TISSUE_HU)
    return plane


def _sharp_radius(radius: float) -> float:
    """Radius whose ball, with edges as soft as ``_put`` makes them, has the volume of a ball.

    The integral of 4 pi r^2 Phi((R - r) / s) is 4/3 pi (R^3 + 3 R s^2).
    """
    roots = np.roots([1.0, 0.0, 3.0 * BLUR_MM**2, -(radius**3)])
    return float(roots[np.isreal(roots)].real.max())


def _near(
    x: Floats, y: Floats, z: float, low: Floats, high: Floats, radius: float
) -> tuple[slice, slice] | None:
    """The part of a plane that a structure reaches; None if it does not."""
    margin = radius + 4.0 * BLUR_MM
    if not low[2] - margin < z < high[2] + margin:
        return None
    ends = [np.searchsorted(v, (low[a] - margin, high[a] + margin)) for a, v in enumerate((x, y))]
    return slice(*ends[0].tolist()), slice(*ends[1].tolist())


def _from_line(xs: Floats, ys: Floats, z: float, start: Floats, end: Floats) -> Floats:
    """Distance in mm of the points of a plane from the line between two points."""
    along, d = end - start, (xs - start[0], ys - start[1], z - start[2])
    length = max(float(along @ along), 1e-9)
    t = np.clip((d[0] * along[0] + d[1] * along[1] + d[2] * along[2]) / length, 0.0, 1.0)
    parts = [(a - t * b) ** 2 for a, b in zip(d, along, strict=True)]
    return np.asarray(np.sqrt(parts[0] + parts[1] + parts[2]))


def _put(plane: Floats, depth: Floats, hu: float) -> None:
    """Puts a structure into a plane, with edges as soft as the scanner makes them."""
    plane += (hu - plane) * ndtr(depth / BLUR_MM)


def _tree(side: float, count: int, rng: np.random.Generator) -> list[Vessel]:
    """Vessels of a lung, thinner with the distance from its root."""
    root, found = np.array([side * 30.0, 0.0, 0.0]), []
    ends = [root]
    for _ in range(count):
        start = ends[int(rng.integers(len(ends)))]
        out = np.array([side, 0.0, 0.0]) + rng.normal(size=3) * 0.9
        end = start + out / np.linalg.norm(out) * rng.uniform(15.0, 35.0)
        distance = float(np.linalg.norm(start - root))
        radius = max(0.6, 3.5 * float(np.exp(-distance / 45.0)))
        found.append(Vessel(_point(start), _point(end), radius))
        ends.append(end)
    return found


def _point(values: Floats) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z
