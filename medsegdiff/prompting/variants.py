"""Variants of a labelled image that keep its mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.prompting.drawing import DrawOptions, varied
from medsegdiff.prompting.maps import resize
from medsegdiff.prompting.pipeline import TextToImage
from medsegdiff.prompting.word_segmenter import fit


@dataclass(frozen=True)
class VariantOptions:
    """Options of drawing and keeping variants.

    Args:
        count: Number of variants drawn of each image.
        strength: Share of the forward process that the image is noised to, in (0, 1].
        correlation: Least correlation with the image in and around each structure of its mask.
        template: Text of the caption around the names.
        drawing: Options of drawing, for steps and guidance.
        seed: Seed of the noise.
    """

    count: int = 4
    strength: float = 0.3
    correlation: float = 0.7
    template: str = "a scan with {}"
    drawing: DrawOptions = field(default_factory=lambda: DrawOptions(steps=30, guidance=2.0))
    seed: int = 0


def kept_variants(
    model: TextToImage,
    picture: Tensor,
    label: Tensor,
    names: Sequence[str],
    options: VariantOptions,
) -> list[Tensor]:
    """Draw variants of a picture, and keep those whose structures still match the mask.

    Args:
        model: Networks of the pipeline.
        picture: Picture (1, H, W) in [-1, 1].
        label: Class numbers (H, W).
        names: Names of the things in the picture.
        options: Options of drawing and keeping.

    Returns:
        Variants (1, H, W) in [-1, 1], at most ``options.count``.
    """
    framed, inside = fit(picture[None].to(model.device), model.size)
    noise = model.noise(options.count, options.seed)
    caption = model.caption(names, options.template)
    drawn = varied(model, caption, framed, noise, options.strength, options.drawing)
    grey = drawn.mean(dim=1, keepdim=True)[..., inside[0], inside[1]].cpu()
    resized = resize(grey, picture.shape[-2:])
    return [one for one in resized if keeps_structures(one, picture, label, options.correlation)]


def keeps_structures(variant: Tensor, picture: Tensor, label: Tensor, least: float) -> bool:
    """Whether every structure of a mask is unchanged, by the correlation in and around it."""
    for value in label.unique():
        if value:
            mask = (label == value)[None, None].float()
            about = F.max_pool2d(mask, 5, stride=1, padding=2)[0, 0].bool()
            pair = torch.stack([variant[0][about], picture[0][about]]).double()
            if not float(torch.corrcoef(pair)[0, 1]) >= least:
                return False
    return True
