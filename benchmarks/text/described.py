"""Pictures of many kinds, with what each shows and how large: what captions are made from.

Masks go into the share of the picture that each structure covers, and no further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.data import Case, Manifest, load_manifest
from medsegdiff.phantoms import (
    HEAD_NAMES,
    LEAST,
    NAMES,
    SIZE,
    HeadLabels,
    captioned_image,
    head_picture,
    read_head_labels,
)
from medsegdiff.prompting import Example, as_picture, examples_of

HEART_NAMES = ("left ventricle", "myocardium", "right ventricle")
DOMAINS: dict[str, tuple[str, ...]] = {
    "generated": NAMES,
    "head": HEAD_NAMES,
    "heart": HEART_NAMES,
    "chest": ("nodule",),
    "retina": ("vessel",),
}
"""Kind of picture -> all names that a caption of it can have."""
CHOOSING = 8
"""Cases of a set's training part that options are chosen on; they are not trained on."""
HEADS_CHOOSING = 2
"""Label maps of heads, the last ones, that options are chosen on."""


@dataclass(frozen=True)
class Cut:
    """Squares that are cut out of the slices of a set.

    Attributes:
        kind: One of ``DOMAINS``.
        sides: Least and largest side, in pixels.
        near: Share of the squares that lie about a structure; others lie anywhere.
        turn: Standard deviation of the angle of rotation, in degrees.
    """

    kind: str
    sides: tuple[float, float]
    near: float
    turn: float


CUTS = {
    "acdc": Cut("heart", (48.0, 200.0), 0.8, 12.0),
    "lidc": Cut("chest", (20.0, 64.0), 0.6, 90.0),
    "chase_db1": Cut("retina", (64.0, 320.0), 0.3, 90.0),
}


@dataclass(frozen=True)
class Described:
    """A picture, and what it shows.

    Attributes:
        picture: Picture (1 or 3, 64, 64) in [-1, 1].
        kind: One of ``DOMAINS``.
        shares: Name -> share of the picture that it covers.
        unclear: Names of which the picture shows too little, or does not tell.
        context: Words on the picture as a whole, such as its plane and contrast.
        attributes: Name -> an attribute, of generated pictures.
        masks: Name -> mask (64, 64) bool, for measuring; no caption is made from them.
    """

    picture: Tensor
    kind: str
    shares: dict[str, float]
    unclear: frozenset[str]
    context: str
    attributes: dict[str, str]
    masks: dict[str, Tensor]


def read_heads(folder: str | Path, choosing: bool = False) -> list[HeadLabels]:
    """Label maps of heads in a folder: those to train on, or those to choose options on."""
    files = sorted(Path(folder).glob("*.nii*"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no label map of a head.")
    kept = files[-HEADS_CHOOSING:] if choosing else files[:-HEADS_CHOOSING] or files
    return [read_head_labels(file) for file in kept]


def generated(seed: int, number: int) -> Described:
    """A generated picture of organs and lesions."""
    one = captioned_image(seed, number)
    masks = {thing.name: torch.from_numpy(thing.mask) for thing in one.things}
    attributes = {thing.name: thing.attribute for thing in one.things if thing.attribute}
    picture = as_picture(torch.from_numpy(one.image)[None])
    return Described(picture, "generated", shares_of(masks), frozenset(), "scan", attributes, masks)


def of_head(heads: Sequence[HeadLabels], seed: int, number: int) -> Described:
    """A picture of a part of a head."""
    one = head_picture(heads, seed, number)
    masks = {name: torch.from_numpy(mask) for name, mask in one.masks.items()}
    contrast = "" if one.contrast == "mixed" else f"{one.contrast} "
    picture = torch.from_numpy(one.image)[None]
    return Described(
        picture, "head", shares_of(masks), one.unclear, f"{contrast}{one.plane} head", {}, masks
    )


def shares_of(masks: dict[str, Tensor]) -> dict[str, float]:
    """Share of the picture that each mask covers."""
    return {name: float(mask.float().mean()) for name, mask in masks.items()}


# --- real slices ----------------------------------------------------------------------------


def cases_of(manifest: Manifest, part: str) -> list[Case]:
    """Cases of fold 0: ``training``, ``choosing`` or ``held-out``; no patient is in two of them."""
    training, held_out = manifest.split(0)
    if part == "held-out":
        return list(held_out)
    patients = sorted({case.patient for case in training})
    kept = set(patients[-CHOOSING:]) if len(patients) > 2 * CHOOSING else set(patients[-1:])
    return [case for case in training if (case.patient in kept) == (part == "choosing")]


def manifest_of(data: str) -> Manifest:
    """A set by its name, or by name, ``=`` and a folder, whose own description goes first."""
    folder = data.partition("=")[2]
    return load_manifest(folder if (Path(folder) / "dataset.json").is_file() and folder else data)


def slices_of_set(data: str, part: str, most: int = 1000, seed: int = 0) -> list[Example]:
    """Slices of a part of a set with their masks, of cases in a random order.

    Args:
        data: Name of the set, with ``=`` and a folder if its files lie elsewhere.
        part: Part of fold 0, as for ``cases_of``.
        most: Most slices.
        seed: Seed of the order.
    """
    manifest = manifest_of(data)
    cases = cases_of(manifest, part)
    found: list[Example] = []
    for number in np.random.default_rng(seed).permutation(len(cases)):
        found += examples_of(cases[number], manifest, "axial", ())
        if len(found) >= most:
            break
    return found[:most]


def cut_out(slices: Sequence[Example], cut: Cut, seed: int, number: int) -> Described:
    """A turned square of a slice, with and without its structures."""
    rng = np.random.default_rng([seed, number])
    one = slices[int(rng.integers(len(slices)))]
    height, width = one.picture.shape[-2:]
    side = float(np.exp(rng.uniform(*np.log(cut.sides))))
    centre = np.array([rng.uniform(0, height), rng.uniform(0, width)])
    if one.masks and rng.random() < cut.near:
        place = torch.nonzero(one.masks[int(rng.integers(len(one.masks)))])
        centre = place[int(rng.integers(len(place)))].numpy() + rng.uniform(-0.4, 0.4, 2) * side
    low = np.minimum(0.4 * side, np.array([height, width]) / 2)
    centre = np.clip(centre, low, np.array([height, width]) - low)
    turned = square(one, centre, side, float(np.radians(rng.normal(0.0, cut.turn))))
    picture = as_picture(turned.picture + 0.03 * rng.random() * torch.randn(SIZE, SIZE))
    bent = ((picture + 1.0) / 2.0) ** float(rng.uniform(0.75, 1.35)) * 2.0 - 1.0
    return described(Example(bent, turned.texts, turned.masks), cut.kind)


def described(example: Example, kind: str) -> Described:
    """What an example of a kind shows, by the last of its texts."""
    masks, unclear = {}, set()
    for texts, mask in zip(example.texts, example.masks, strict=True):
        if float(mask.float().mean()) >= LEAST:
            masks[texts[-1]] = mask
        elif mask.any():
            unclear.add(texts[-1])
    return Described(example.picture, kind, shares_of(masks), frozenset(unclear), kind, {}, masks)


def square(example: Example, centre: Sequence[float], side: float, angle: float = 0.0) -> Example:
    """A square of an example in the model's size; what lies outside is as its border.

    Args:
        example: Picture (C, H, W) and masks.
        centre: Row and column of the middle.
        side: Side in pixels.
        angle: Angle of rotation in radians.
    """
    reach = 0.75 * side + 2.0  # a turned square's corners, and the blur
    top, left = (max(0, int(place - reach)) for place in centre)
    rows, columns = (
        slice(k, int(place + reach)) for k, place in zip((top, left), centre, strict=True)
    )
    picture = example.picture[:, rows, columns]
    steps = ((torch.arange(SIZE) + 0.5) / SIZE - 0.5) * side
    down, across = torch.meshgrid(steps, steps, indexing="ij")
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    y = float(centre[0]) - top + cos * down - sin * across
    x = float(centre[1]) - left + sin * down + cos * across
    height, width = picture.shape[-2:]
    grid = torch.stack([2.0 * x / width - 1.0, 2.0 * y / height - 1.0], dim=-1)[None].float()
    coarse = max(1, round(side / SIZE))  # averaged before, so that nothing is skipped

    def taken(values: Tensor) -> Tensor:
        blurred = F.avg_pool2d(values[None], coarse, 1, coarse // 2, count_include_pad=False)
        return F.grid_sample(blurred, grid, padding_mode="border", align_corners=False)[0]

    if not example.masks:
        return Example(taken(picture), example.texts, ())
    maps = torch.stack([mask[rows, columns].float() for mask in example.masks])
    return Example(taken(picture), example.texts, tuple(mask > 0.5 for mask in taken(maps)))


def endless(draws: Sequence[tuple[float, Callable[[int], Described]]]) -> Iterator[Described]:
    """Pictures of several sources without end, each as often as its weight says."""
    weights = np.array([weight for weight, _ in draws])
    rng, counts = np.random.default_rng(0), [0] * len(draws)
    while True:
        chosen = int(rng.choice(len(draws), p=weights / weights.sum()))
        counts[chosen] += 1
        yield draws[chosen][1](counts[chosen])
