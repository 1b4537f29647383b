"""Generated anatomy, images of it, and raters whose disagreement is known.

Every structure k has a level function s_k(x): roughly millimetres to its surface, positive inside.
Each simulated rater sees the surfaces moved by an error e(x) that is shared by all structures, a
constant shift plus a smooth random field, and labels a voxel with the last structure for which
s_k(x) + e(x) > 0. At every voxel e is normal with variance shift_mm^2 + field_mm^2, so that

    P(class >= k at x) = Phi(max_{j >= k} s_j(x) / sqrt(shift_mm^2 + field_mm^2))

exactly, which gives the probability of each class. With probability ``omission`` a rater misses
the last structure altogether.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from scipy.stats import norm

Arrangement = Literal["adjacent", "nested"]
"""Arrangement of the structures: side by side in one organ, or each inside the one before."""


@dataclass(frozen=True)
class Raters:
    """How the simulated raters disagree.

    Attributes:
        shift_mm: Standard deviation of the shift of a rater's surfaces, in mm; the shift is one
            value for each annotation.
        field_mm: Standard deviation of the local error of the surfaces, in mm.
        smoothness: Standard deviation of the kernel that makes the local error smooth, in voxels.
        omission: Probability that the last structure is missed.
    """

    shift_mm: float = 0.6
    field_mm: float = 0.6
    smoothness: float = 2.0
    omission: float = 0.0


def make_anatomy(
    rng: np.random.Generator, spatial_dims: int, classes: int, size: int, arrangement: Arrangement
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Affine and level functions of a random case.

    Args:
        rng: Source of all randomness.
        spatial_dims: Number of spatial axes, 2 or 3.
        classes: Number of structures, without the background.
        size: Number of voxels along an axis, plus or minus an eighth.
        arrangement: Arrangement of the structures.

    Returns:
        Affine (4, 4), voxel -> RAS+ mm; and level functions (classes, *shape), in about mm,
        positive inside.
    """
    shape = tuple(
        int(n) for n in rng.integers(size - size // 8, size + size // 8 + 1, spatial_dims)
    )
    spacing = rng.uniform(0.8, 1.6, spatial_dims)
    affine = _draw_affine(rng, shape, spacing)
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    mm = np.stack(np.meshgrid(*axes, indexing="ij"))
    extent = np.array(shape) * spacing
    centre = extent * rng.uniform(-0.06, 0.06, spatial_dims)
    radii = extent * rng.uniform(0.24, 0.34, spatial_dims)
    wobble = 0.06 * radii.min() * smooth_field(shape, size / 8, rng)
    organ = _ellipsoid(mm, centre, radii) + wobble
    if arrangement == "adjacent":
        along = mm[int(np.argmax(radii))] - centre[int(np.argmax(radii))]
        cuts = radii.max() * (2 * np.arange(classes) / classes - 1)
        parts = [organ, *(np.minimum(organ, along - cut) for cut in cuts[1:])]
        return affine, np.stack(parts)
    shells = [organ]
    for k in range(1, classes):
        centre = centre + 0.1 * radii * rng.uniform(-1, 1, spatial_dims)
        shells.append(_ellipsoid(mm, centre, radii * (1 - k / classes)) + wobble)
    return affine, np.stack(shells)


def draw_annotation(
    levels: NDArray[np.float64], model: Raters, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Label map (*shape) of one simulated rater, from level functions (classes, *shape)."""
    error = model.shift_mm * rng.standard_normal()
    field = smooth_field(levels.shape[1:], model.smoothness, rng)
    kept = levels[:-1] if rng.random() < model.omission else levels
    return _last_above(kept + (error + model.field_mm * field), levels.shape[1:])


def class_probabilities(levels: NDArray[np.float64], model: Raters) -> NDArray[np.float64]:
    """Probability (classes + 1, *shape) that a rater chooses each class, background first."""
    seen = _probabilities(levels, model)
    if not model.omission:
        return seen
    missed = _probabilities(levels[:-1], model)
    missed = np.concatenate([missed, np.zeros_like(seen[:1])])
    return (1 - model.omission) * seen + model.omission * missed


def make_image(
    levels: NDArray[np.float64],
    channel: int,
    rng: np.random.Generator,
    factor: NDArray[np.float64] | None = None,
) -> NDArray[np.int16]:
    """An MR-like magnitude image (*shape): tissue contrast, blur, bias field and Rician noise.

    Args:
        levels: Level functions (classes, *shape), in about mm.
        channel: Number of the channel; each has its own contrast.
        rng: Source of all randomness.
        factor: Factor (*shape) of the tissue's intensity, as lesions have; None: 1 everywhere.
    """
    shape = levels.shape[1:]
    contrast = np.random.default_rng([channel, len(levels)])  # the same in all cases
    steps = np.arange(1, len(levels) + 1) * 140.0 / len(levels)
    tissue = np.concatenate([[60.0], 60.0 + (contrast.permutation(steps) if channel else steps)])
    tissue = tissue * rng.uniform(0.95, 1.05, len(tissue))
    label = _last_above(levels, shape)
    axes = [np.linspace(-1, 1, n) for n in shape]
    radius = np.linalg.norm(np.meshgrid(*axes, indexing="ij"), axis=0)
    clean = np.where((radius > 1.05) & (label == 0), 0.0, tissue[label])
    clean = clean if factor is None else clean * factor
    clean = gaussian_filter(clean, 0.6)
    clean = clean * np.exp(0.15 * smooth_field(shape, max(shape) / 3, rng))
    clean = clean * (1 + 0.04 * smooth_field(shape, 1.0, rng))
    noise = 5.0 * rng.standard_normal((2, *shape))
    magnitude = np.hypot(clean + noise[0], noise[1])
    return np.rint(magnitude * rng.uniform(2.0, 20.0)).astype(np.int16)


def smooth_field(
    shape: tuple[int, ...], smoothness: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Periodic Gaussian random field (*shape), at each voxel exactly of mean 0 and variance 1.

    Args:
        shape: Shape of the field, in voxels.
        smoothness: Standard deviation of the smoothing kernel, in voxels.
        rng: Source of all randomness.
    """
    impulse = np.zeros(shape)
    impulse[(0,) * len(shape)] = 1.0
    kernel = gaussian_filter(impulse, smoothness, mode="wrap")
    noise = gaussian_filter(rng.standard_normal(shape), smoothness, mode="wrap")
    field: NDArray[np.float64] = noise / np.linalg.norm(kernel)
    return field


def _probabilities(levels: NDArray[np.float64], model: Raters) -> NDArray[np.float64]:
    deviation = np.hypot(model.shift_mm, model.field_mm)
    highest = np.maximum.accumulate(levels[::-1], axis=0)[::-1]  # max over j >= k
    unanimous = (highest > 0).astype(np.float64)
    at_least = norm.cdf(highest / deviation) if deviation > 0 else unanimous
    edge = np.ones((1, *levels.shape[1:]))
    probabilities: NDArray[np.float64] = -np.diff(at_least, axis=0, prepend=edge, append=0 * edge)
    return probabilities


def _last_above(levels: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    label = np.zeros(shape, dtype=np.uint8)
    for value, level in enumerate(levels, start=1):
        label[level > 0] = value
    return label


def _ellipsoid(
    mm: NDArray[np.float64], centre: NDArray[np.float64], radii: NDArray[np.float64]
) -> NDArray[np.float64]:
    across = (slice(None), *(None,) * (mm.ndim - 1))
    distance = np.linalg.norm((mm - centre[across]) / radii[across], axis=0)
    level: NDArray[np.float64] = (1 - distance) * radii.min()
    return level


def _draw_affine(
    rng: np.random.Generator, shape: tuple[int, ...], spacing: NDArray[np.float64]
) -> NDArray[np.float64]:
    """An affine as of a scanner: axes flipped at random, and tilted by some degrees in 3D."""
    steps = np.ones(3)
    steps[: len(shape)] = spacing * rng.choice([-1.0, 1.0], len(shape))
    angles = rng.uniform(-15, 15, 3) if len(shape) == 3 else np.zeros(3)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * steps
    middle = np.zeros(3)
    middle[: len(shape)] = (np.array(shape) - 1) / 2
    affine[:3, 3] = rng.uniform(-20, 20, 3) - affine[:3, :3] @ middle
    return affine
