"""Generated 2D images of organs and lesions, with captions that name them, and masks.

Several structures share an image, so that a model must tell their words apart. A structure that the
caption does not name is not in the image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError

ORGANS = ("liver", "spleen", "kidney", "stomach", "bladder", "vertebra")
LESION = "lesion"
NAMES = (*ORGANS, LESION)
"""Names of all structures; class k is the k-th, from 1 on."""
ATTRIBUTES = ("bright", "dark")
SIZE = 64
"""Pixels along each side of an image."""

UNSEEN_ORGAN = "spleen"
UNSEEN_COMBINATIONS = (("dark", "liver"), ("bright", "kidney"))
"""Attributes and organs whose masks are left out when a grounding module is trained."""

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class NamedStructure:
    """An organ or a lesion in an image.

    Attributes:
        name: One of ``NAMES``.
        attribute: One of ``ATTRIBUTES``, or empty.
        mask: Mask (64, 64) of its visible part.
    """

    name: str
    attribute: str
    mask: Mask

    @property
    def text(self) -> str:
        """The words that a caption uses for it, such as "dark liver"."""
        return f"{self.attribute} {self.name}".strip()

    @property
    def unseen(self) -> bool:
        """Whether its masks are left out when a grounding module is trained."""
        return self.name == UNSEEN_ORGAN or (self.attribute, self.name) in UNSEEN_COMBINATIONS


@dataclass(frozen=True)
class CaptionedImage:
    """An image with a caption and a mask of each structure.

    Attributes:
        image: Image (64, 64) float32 in [-1, 1], rows from the top.
        things: Structures in the caption's order; each name occurs once.
    """

    image: Floats
    things: tuple[NamedStructure, ...]

    @property
    def caption(self) -> str:
        """The caption, such as "a scan with dark liver, lesion"."""
        return "a scan with " + ", ".join(thing.text for thing in self.things)

    @property
    def label(self) -> NDArray[np.uint8]:
        """Label map (64, 64) of class numbers: 0, or 1 + the position in ``NAMES``."""
        label = np.zeros((SIZE, SIZE), dtype=np.uint8)
        for thing in self.things:
            label[thing.mask] = 1 + NAMES.index(thing.name)
        return label


def captioned_image(
    seed: int, number: int, without_unseen: bool = False, plain: float = 0.3
) -> CaptionedImage:
    """One image with up to four organs and at most one lesion, fixed by the seed and its number.

    Args:
        seed: Seed of a cohort.
        number: Number of the image in the cohort.
        without_unseen: Whether the unseen organ and the unseen combinations are left out.
        plain: Probability that an organ has no attribute.
    """
    rng = np.random.default_rng([seed, number])
    image = _background(rng)
    taken = np.zeros((SIZE, SIZE), dtype=bool)
    things: list[NamedStructure] = []
    for name in rng.permutation(ORGANS)[: rng.integers(1, 5)]:
        attribute = "" if rng.random() < plain else str(rng.choice(ATTRIBUTES))
        kind = NamedStructure(str(name), attribute, taken)
        if without_unseen and kind.unseen:
            continue
        mask = _placed(rng, _SHAPES[kind.name], taken)
        if mask is not None:
            things.append(NamedStructure(kind.name, attribute, mask))
            image[mask] = _texture(kind.name, attribute, mask, rng)[mask]
            taken |= _grown(mask)
    if rng.random() < 0.4 or not things:
        spot = _placed(rng, _lesion, np.zeros_like(taken), tries=200)
        assert spot is not None
        image[_grown(spot) & ~spot] = -0.9
        image[spot] = 0.95
        things = [NamedStructure(t.name, t.attribute, t.mask & ~spot) for t in things]
        things.append(NamedStructure(LESION, "", spot))
    order = rng.permutation(len(things))
    noise = rng.normal(0.0, 0.06, image.shape)
    shown = np.clip(image + noise, -1.0, 1.0).astype(np.float32)
    return CaptionedImage(shown, tuple(things[i] for i in order if things[i].mask.any()))


def write_captioned(folder: str | Path, cases: int, seed: int = 0) -> Path:
    """Write images and masks as NIfTI, and a ``dataset.json`` whose entries hold captions.

    Args:
        folder: Folder of the files; it is created if it is missing.
        cases: Number of images.
        seed: Seed of all randomness.

    Returns:
        Path of the ``dataset.json``.

    Raises:
        InputError: ``cases`` is below 1.
    """
    if cases < 1:
        raise InputError("captioned phantom", "needs one case at least", "Ask for more")
    folder = Path(folder)
    entries = []
    for number in range(cases):
        drawn = captioned_image(seed, number)
        name = f"captioned_{number:04d}"
        for kind, values in (("imagesTr", drawn.image), ("labelsTr", drawn.label)):
            file = folder / kind / f"{name}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(values.T, np.diag([1.0, 1.0, 1.0, 1.0])), file)
        entries.append(
            {
                "image": f"imagesTr/{name}.nii.gz",
                "label": f"labelsTr/{name}.nii.gz",
                "patient": name,
                "caption": drawn.caption,
            }
        )
    described: dict[str, Any] = {
        "name": "captioned",
        "description": "Generated images of named organs and lesions",
        "licence": "CC0-1.0",
        "reference": "generated",
        "tensorImageSize": "2D",
        "modality": {"0": "generated"},
        "labels": dict(enumerate(["background", *NAMES])),
        "training": entries,
    }
    file = folder / "dataset.json"
    file.write_text(json.dumps(described, indent=1), encoding="utf-8")
    return file


def texts_of(things: Collection[NamedStructure]) -> list[str]:
    """The words that a caption uses for each of some structures."""
    return [thing.text for thing in things]


# --- appearance of the structures -----------------------------------------------------------

_LEVELS = {
    "liver": 0.1,
    "spleen": -0.1,
    "kidney": 0.2,
    "stomach": 0.0,
    "bladder": 0.3,
    "vertebra": 0.1,
}


def _background(rng: np.random.Generator) -> Floats:
    rows, columns = _grid()
    inside = ((rows - 31.5) / 30.0) ** 2 + ((columns - 31.5) / 31.0) ** 2 < 1.0
    bias = 0.1 * (rows / SIZE) * rng.uniform(-1, 1) + 0.1 * (columns / SIZE) * rng.uniform(-1, 1)
    return np.asarray(np.where(inside, -0.55 + bias, -1.0), dtype=np.float32)


def _texture(name: str, attribute: str, mask: Mask, rng: np.random.Generator) -> Floats:
    """Level and pattern of an organ, over the whole image."""
    rows, columns = _grid()
    level = _LEVELS[name] + {"": 0.0, "bright": 0.3, "dark": -0.3}[attribute]
    values = np.full((SIZE, SIZE), level, dtype=np.float32)
    if name == "stomach":
        values += 0.3 * np.where(rows % 4 < 2, 1.0, -1.0)
    if name == "liver":
        values += rng.normal(0.0, 0.15, values.shape)
    if name == "spleen":
        values += 0.3 * np.where((rows + columns) % 6 < 3, 1.0, -1.0)
    if name == "kidney":
        values -= 0.5 * _shrunk(mask, 3)
    if name == "vertebra":
        values += 0.4 * (mask & ~_shrunk(mask, 1))
    return values


def _ellipse(rng: np.random.Generator, least: float, greatest: float, ratio: float) -> Mask:
    rows, columns = _grid()
    y, x = rng.uniform(10, SIZE - 10, 2)
    radius, angle = rng.uniform(least, greatest), rng.uniform(0, np.pi)
    u = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    v = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    return np.asarray((u / radius) ** 2 + (v / (radius * ratio)) ** 2 < 1.0)


def _liver(rng: np.random.Generator) -> Mask:
    return _ellipse(rng, 11, 14, rng.uniform(0.6, 0.8))


def _spleen(rng: np.random.Generator) -> Mask:
    return _ellipse(rng, 8, 11, rng.uniform(0.5, 0.7))


def _kidney(rng: np.random.Generator) -> Mask:
    return _ellipse(rng, 7, 9, rng.uniform(0.7, 0.9))


def _stomach(rng: np.random.Generator) -> Mask:
    return _ellipse(rng, 8, 12, rng.uniform(0.6, 0.9))


def _bladder(rng: np.random.Generator) -> Mask:
    return _ellipse(rng, 6, 8, 1.0)


def _vertebra(rng: np.random.Generator) -> Mask:
    rows, columns = _grid()
    y, x = rng.uniform(10, SIZE - 10, 2)
    half = rng.uniform(4.5, 6.5)
    return np.asarray((abs(rows - y) < half) & (abs(columns - x) < half))


def _lesion(rng: np.random.Generator) -> Mask:
    return _ellipse(rng, 2.5, 3.5, 1.0)


_SHAPES: dict[str, Callable[[np.random.Generator], Mask]] = {
    "liver": _liver,
    "spleen": _spleen,
    "kidney": _kidney,
    "stomach": _stomach,
    "bladder": _bladder,
    "vertebra": _vertebra,
}


def _placed(
    rng: np.random.Generator,
    shape: Callable[[np.random.Generator], Mask],
    taken: Mask,
    tries: int = 60,
) -> Mask | None:
    """A shape inside the body that touches no other; None if no place is found."""
    rows, columns = _grid()
    outside = ((rows - 31.5) / 28.0) ** 2 + ((columns - 31.5) / 29.0) ** 2 >= 1.0
    for _ in range(tries):
        mask = shape(rng)
        if not (mask & (taken | outside)).any():
            return mask
    return None


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column of each pixel."""
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
    return rows, columns


def _grown(mask: Mask) -> Mask:
    """The mask, grown by one pixel along each axis."""
    grown = mask.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            grown |= np.roll(mask, step, axis)
    return grown


def _shrunk(mask: Mask, pixels: int) -> Mask:
    """The mask, shrunk by a number of pixels."""
    for _ in range(pixels):
        mask = ~_grown(~mask)
    return mask
