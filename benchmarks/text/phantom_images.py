"""Generated images with captions, of seeds that the model has not been trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from medsegdiff.phantoms import CaptionedImage
from medsegdiff.prompting import Example, as_picture

HELD_OUT, TEACHING, REAL = 1, 2, 3
"""Seeds of images that the model has not been trained on."""
FIRST = 1000
"""The first held-out image that is judged; options were chosen by looking at earlier ones."""


def picture(one: CaptionedImage) -> Tensor:
    """(1, 64, 64) in [-1, 1]."""
    return as_picture(torch.from_numpy(one.image)[None])


def example(one: CaptionedImage) -> Example:
    """An image with its masks, each by its text and by its name alone."""
    masks = [torch.from_numpy(thing.mask) for thing in one.things]
    texts = [(thing.text, thing.name) for thing in one.things]
    return Example(picture(one), tuple(texts), tuple(masks))


def truth_of(one: CaptionedImage) -> Tensor:
    """(64, 64) number of the thing at each place, in the caption's order, from 1 on."""
    masks = torch.stack([torch.from_numpy(thing.mask) for thing in one.things])
    return torch.where(masks.any(dim=0), 1 + masks.int().argmax(dim=0), 0)
