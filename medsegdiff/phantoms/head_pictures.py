"""Pictures of heads of any contrast, drawn from label maps, with captions and masks.

Domain randomisation (Billot et al., "SynthSeg", Medical Image Analysis 2023): a plane through a
deformed label map, a random grey value for each structure, texture, a bias field, blur, coarse
slices and noise. A picture shows a part of the head, so that each structure is in some pictures and
not in others; and some structures are erased: what surrounds them fills their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_filter1d
from scipy.spatial.transform import Rotation
from torch import Tensor

from medsegdiff.data.deformation import RandomDeformationd
from medsegdiff.phantoms.captioned import SIZE, Floats, Mask
from medsegdiff.phantoms.head_labels import (
    BACKGROUND,
    SIDES,
    SURROUNDINGS,
    HeadLabels,
    Tissue,
    sideless,
    tissue_of,
)

Plane = Literal["axial", "coronal", "sagittal"]
Contrast = Literal["t1", "t2", "mixed"]
"""Order of grey values: white matter brightest, fluid brightest, or any other."""

PLANES: dict[Plane, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "axial": ((0, 1, 0), (1, 0, 0)),
    "coronal": ((0, 0, -1), (1, 0, 0)),
    "sagittal": ((0, 0, -1), (0, 1, 0)),
}
"""Directions of a picture's rows and columns in LPS, as radiologists see slices."""
LEAST = 0.003
"""Share of a picture that a structure covers at least to be named; with less, it is unclear."""
FIELD_MM = (64.0, 200.0)
"""Smallest and largest side of a picture, in mm."""
FINER = 2
"""Factor by which labels are finer than the picture along each axis, for partial volumes."""

_ORDERED: dict[Contrast, dict[Tissue, tuple[float, float]]] = {
    "t1": {
        "white matter": (0.75, 1.0),
        "deep grey matter": (0.55, 0.8),
        "grey matter": (0.4, 0.65),
        "fluid": (0.05, 0.25),
    },
    "t2": {
        "white matter": (0.2, 0.4),
        "deep grey matter": (0.25, 0.5),
        "grey matter": (0.4, 0.65),
        "fluid": (0.8, 1.0),
    },
}
"""Ranges of grey values, 0 to 1, of each kind of tissue."""


@dataclass(frozen=True)
class HeadPicture:
    """A picture of a part of a head, with a mask of each structure that a caption can name.

    Attributes:
        image: Image (64, 64) float32 in [-1, 1], rows from the top.
        plane: Plane of the slice.
        contrast: Order of its grey values.
        masks: Name -> mask (64, 64); paired structures by their name alone, and with their side
            where the plane tells it.
        unclear: Names of what the picture shows too little of, or does not tell: sides in sagittal
            slices.
    """

    image: Floats
    plane: Plane
    contrast: Contrast
    masks: dict[str, Mask]
    unclear: frozenset[str]


def head_picture(heads: Sequence[HeadLabels], seed: int, number: int) -> HeadPicture:
    """One picture, fixed by the seed and its number.

    Args:
        heads: Label maps to draw from.
        seed: Seed of a set of pictures.
        number: Number of the picture in the set.
    """
    rng = np.random.default_rng([seed, number])
    head = heads[int(rng.integers(len(heads)))]
    plane: Plane = ("axial", "coronal", "sagittal")[int(rng.integers(3))]
    labels = _deformed(_cut(head, plane, rng), rng)
    if rng.random() < 0.6:  # as after skull stripping
        labels = _without(labels, head, [n for n in head.numbers if n >= SURROUNDINGS])
    labels = _erased(labels, head, rng)
    contrast = str(rng.choice(("t1", "t2", "mixed"), p=(0.45, 0.15, 0.4)))
    image = _image(_grey_values(head, contrast, rng)[labels], rng)  # type: ignore[arg-type]
    masks, unclear = _named(labels, head, plane)
    return HeadPicture(image, plane, contrast, masks, unclear)  # type: ignore[arg-type]


# --- the plane ------------------------------------------------------------------------------


def _cut(head: HeadLabels, plane: Plane, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Labels (128, 128) of a square in a tilted plane, around a random place."""
    side = float(np.exp(rng.uniform(*np.log(FIELD_MM))))
    steps = (np.arange(FINER * SIZE) + 0.5) / (FINER * SIZE) - 0.5
    turn = Rotation.from_euler("xyz", rng.normal(0.0, 6.0, 3), degrees=True).as_matrix()
    rows, columns = (turn @ np.array(direction) for direction in PLANES[plane])
    places = _centre(head, side, rng) + side * (
        steps[:, None, None] * rows + steps[None, :, None] * columns
    )
    voxels = np.rint(places).astype(int)
    shape = np.array(head.labels.shape)
    inside = ((voxels >= 0) & (voxels < shape)).all(axis=-1)
    x, y, z = np.moveaxis(np.clip(voxels, 0, shape - 1), -1, 0)
    return np.where(inside, head.labels[x, y, z], np.uint8(0))


def _centre(head: HeadLabels, side: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A place near a random structure; in large pictures near the middle of the head as well."""
    voxels = list(head.voxels.values())[int(rng.integers(len(head.voxels)))]
    near = voxels[int(rng.integers(len(voxels)))] + rng.uniform(-0.4, 0.4, 3) * min(side, 100.0)
    share = min(1.0, side / FIELD_MM[1]) * rng.uniform(0.5, 1.0)
    middle: NDArray[np.float64] = (1.0 - share) * near + share * np.array(head.labels.shape) / 2.0
    return middle


def _deformed(labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    deform = RandomDeformationd(
        ["labels"], 2, displacement=2.0, spacing=24.0, rotation=0.1, scaling=0.15,
        translation=0.0, modes=["nearest"],
    )  # fmt: skip
    deform.set_random_state(seed=int(rng.integers(2**31)))
    found: Tensor = deform({"labels": torch.from_numpy(labels)[None]})["labels"][0]
    return found.numpy()


def _without(
    labels: NDArray[np.uint8], head: HeadLabels, numbers: Sequence[int]
) -> NDArray[np.uint8]:
    gone = np.isin(labels, head.places_of(tuple(numbers)))
    return np.where(gone, np.uint8(BACKGROUND), labels)


def _erased(
    labels: NDArray[np.uint8], head: HeadLabels, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Labels without some of the structures; the nearest others fill their place."""
    share = rng.choice((0.0, 0.2, 0.5), p=(0.5, 0.25, 0.25))
    gone = [values for values in head.named.values() if rng.random() < share]
    hidden = np.isin(labels, [value for values in gone for value in values])
    if not hidden.any() or hidden.all():
        return labels
    nearest = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    return labels[tuple(nearest)]


# --- the image ------------------------------------------------------------------------------


def _grey_values(
    head: HeadLabels, contrast: Contrast, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Grey value, 0 to 1, of each of the head's labels; both of a pair have the same."""
    tissues: tuple[Tissue, ...] = ("white matter", "deep grey matter", "grey matter", "fluid")
    ranges = _ORDERED.get(contrast) or dict.fromkeys(tissues, (0.05, 1.0))
    drawn = {tissue: rng.uniform(*ranges[tissue]) for tissue in tissues}
    spread = 0.04 if contrast != "mixed" else rng.choice((0.04, 0.3))
    drawn["air"] = 0.0 if rng.random() < 0.9 else rng.uniform(0.0, 0.3)
    values: dict[int, float] = {}
    for number in head.numbers:
        one, tissue = sideless(number), tissue_of(number)
        if tissue == "surroundings":
            values[one] = rng.uniform(0.0, 1.0)
        elif one not in values:
            values[one] = drawn[tissue] + (rng.normal(0.0, spread) if one != BACKGROUND else 0.0)
    return np.clip([values[sideless(number)] for number in head.numbers], 0.0, 1.0)


def _image(clean: NDArray[np.float64], rng: np.random.Generator) -> Floats:
    """A picture (64, 64) in [-1, 1] of grey values (128, 128), 0 to 1."""
    texture = gaussian_filter(rng.standard_normal(clean.shape), 1.0) * rng.uniform(0.0, 0.12)
    image = np.where(clean > 0.02, clean + texture, clean)
    image = gaussian_filter(image, rng.uniform(0.3, 1.6))
    if rng.random() < 0.25:  # slices thicker than the picture's pixels
        image = gaussian_filter1d(image, rng.uniform(1.0, 3.5), axis=int(rng.integers(2)))
    image = image * np.exp(rng.uniform(0.0, 0.25) * _smooth(clean.shape, rng))
    small = image.reshape(SIZE, FINER, SIZE, FINER).mean(axis=(1, 3)).clip(0.0)
    deviation = rng.uniform(0.0, 0.05)
    noise = deviation * rng.standard_normal((2, SIZE, SIZE))
    small = np.hypot(small + noise[0], noise[1])  # Rician, as in magnitude images
    small = small / max(float(np.quantile(small, 0.995)), 0.2) * rng.uniform(0.7, 1.05)
    small = small.clip(0.0, 1.0) ** rng.uniform(0.75, 1.35)
    return (2.0 * small - 1.0).astype(np.float32)


def _smooth(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    points = torch.from_numpy(rng.standard_normal((1, 1, 4, 4)).astype(np.float32))
    field: NDArray[np.float32] = F.interpolate(points, shape, mode="bicubic")[0, 0].numpy()
    return field


# --- what is named --------------------------------------------------------------------------


def _named(
    labels: NDArray[np.uint8], head: HeadLabels, plane: Plane
) -> tuple[dict[str, Mask], frozenset[str]]:
    """Masks of what is named, and names of what is unclear."""
    names = list(head.named)
    belongs = np.zeros((len(names), len(head.numbers)), dtype=bool)
    for row, values in zip(belongs, head.named.values(), strict=True):
        row[list(values)] = True
    parts = labels.reshape(SIZE, FINER, SIZE, FINER).transpose(1, 3, 0, 2)
    filled = belongs[:, parts.reshape(FINER**2, SIZE, SIZE)].sum(axis=1)  # (names, 64, 64)
    masks, unclear = {}, set()
    for name, mask, some in zip(names, 2 * filled >= FINER**2, filled.any((1, 2)), strict=True):
        if plane == "sagittal" and name.startswith(SIDES):
            unclear.add(name)
        elif mask.mean() >= LEAST:
            masks[name] = mask
        elif some:
            unclear.add(name)
    return masks, frozenset(unclear)
