"""Slices of real sets with captions made from their labels, for the small text-to-image model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medsegdiff.data import Manifest, load_manifest
from medsegdiff.phantoms import SIZE
from medsegdiff.prompting import Example, examples_of, framed

LEAST = 0.005
"""Share of a picture that something has to cover to be named."""


@dataclass(frozen=True)
class Wording:
    """How a set's captions are worded.

    Attributes:
        names: Names of each label.
        around: Name of all the rest.
        tile: Side in pixels of the squares that large pictures are cut into; 0: they stay whole.
    """

    names: dict[str, str]
    around: str
    tile: int = 0


WORDINGS = {
    "hippocampus_mr": Wording(
        {"anterior": "anterior hippocampus", "posterior": "posterior hippocampus"}, "brain"
    ),
    "lidc": Wording({"nodule": "nodule"}, "lung"),
    "chase_db1": Wording({"vessel": "vessel"}, "retina", tile=240),
}
WORDS = ("anterior", "posterior", "hippocampus", "brain", "nodule", "lung", "vessel", "retina")


def captioned_slices(
    data: Sequence[str], part: Literal["training", "held-out"], limit: int = 2000, seed: int = 0
) -> list[Example]:
    """Pictures (1 or 3, 64, 64) of sets, with what each shows.

    Args:
        data: Names of ``WORDINGS``, each with ``=`` and a folder if its files lie elsewhere.
        part: Part of fold 0.
        limit: Most pictures of each set.
        seed: Seed of the choice of cases.
    """
    return [found for name in data for found in _of_set(load_manifest(name), part, limit, seed)]


def _of_set(manifest: Manifest, part: str, limit: int, seed: int) -> list[Example]:
    wording = WORDINGS[manifest.name]
    cases = manifest.split(0)[0 if part == "training" else 1]
    found: list[Example] = []
    for number in np.random.default_rng(seed).permutation(len(cases)):
        for example in examples_of(cases[number], manifest, "axial", ()):
            for tile in _tiles(example, wording.tile):
                found.append(_worded(tile, wording))
        if len(found) >= limit:
            break
    return found[:limit]


def _tiles(example: Example, side: int) -> Iterator[Example]:
    if not side:
        yield example
        return
    height, width = example.picture.shape[-2:]
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            rows, columns = slice(top, top + side), slice(left, left + side)
            masks = tuple(mask[rows, columns] for mask in example.masks)
            yield Example(example.picture[:, rows, columns], example.texts, masks)


def _worded(example: Example, wording: Wording) -> Example:
    """In the model's frame, and with the rest named as well."""
    picture, masks = framed(example, (SIZE, SIZE))
    shown = [k for k, mask in enumerate(masks) if float(mask.mean()) >= LEAST]
    names = [(wording.names[example.texts[k][-1]],) for k in shown]
    rest = masks.sum(dim=0) == 0
    found: list[Tensor] = [masks[k] > 0 for k in shown]
    return Example(picture, (*names, (wording.around,)), (*found, torch.as_tensor(rest)))
