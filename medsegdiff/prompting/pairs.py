"""Images drawn from captions, with masks of what they name: data to train a segmenter on.

After Wu et al., "DiffuMask: Synthesizing Images with Pixel-level Annotations for Semantic
Segmentation Using Diffusion Models", ICCV 2023: cross-attention while drawing, an adaptive
threshold, refinement, and noisy pairs left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from medsegdiff.core.errors import UsageError
from medsegdiff.prompting.drawing import DrawOptions, draw
from medsegdiff.prompting.maps import resize
from medsegdiff.prompting.pipeline import TextToImage
from medsegdiff.prompting.refine import guided
from medsegdiff.prompting.word_segmenter import Prompted, PromptOptions, PromptSegmenter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairOptions:
    """How pairs are drawn and kept.

    Args:
        drawing: of the pictures.
        finding: of the words in a finished picture, which gives its masks.
        agreement: least intersection over union, for every word, between its mask and where it
            was attended to while the picture was drawn.
        only_named: leave out pictures in which a class is found that the caption does not name.
        fill_holes: a hole in a thing's mask is part of it, as for organs with a dark inside.
        largest: share of the picture that a mask may cover.
        seed: a pair depends on it and on the pair's number alone.
    """

    drawing: DrawOptions = field(default_factory=DrawOptions)
    finding: PromptOptions = field(default_factory=lambda: PromptOptions(template="a scan with {}"))
    agreement: float = 0.3
    only_named: bool = False
    fill_holes: bool = False
    largest: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.only_named and not self.finding.tells_presence:
            raise UsageError(
                "only_named", "needs words that can be absent", "Give attended, such as 0.2"
            )


@dataclass(frozen=True)
class DrawnPair:
    """A picture with its masks.

    Attributes:
        picture: (1, H, W) in [-1, 1], grey.
        label: (H, W) uint8 class numbers.
        names: what its caption named.
    """

    picture: Tensor
    label: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class DrawnPairs:
    """What was kept, and what was not.

    Attributes:
        kept: pairs in the order in which they were drawn.
        drawn: how many were drawn.
        dropped: why the others were not kept: ``absent``, ``unnamed``, ``large``, ``agreement``.
    """

    kept: tuple[DrawnPair, ...]
    drawn: int
    dropped: dict[str, int]


def draw_pairs(
    model: TextToImage,
    captions: Sequence[Sequence[str]],
    classes: Sequence[str],
    count: int,
    options: PairOptions,
    progress: Callable[[int, int], None] | None = None,
) -> DrawnPairs:
    """Draw pairs until so many are kept, or all captions have been drawn.

    The next caption is always one that names the class that has been kept least, while there are
    such, so that what is hard to draw is not missing from the data. A class that is never fit to
    keep uses up its captions first.

    Args:
        model: the pipeline's networks.
        captions: the names of the things of each, such as ``["dark liver", "lesion"]``.
        classes: names, in the order of their numbers, from 1 on; each thing ends with one.
        count: of pairs wanted.
        options: how.
        progress: told after each pair how many are kept, and of how many.

    Raises:
        UsageError: a thing is of no class.
    """
    segmenter = PromptSegmenter(model, options.finding)
    recogniser = PromptSegmenter(
        model, replace(options.finding, evidence="attention", radius=0, crf=0.0)
    )
    kept: list[DrawnPair] = []
    dropped = {"absent": 0, "unnamed": 0, "large": 0, "agreement": 0}
    drawn = 0
    left = {k: [class_of(name, classes) for name in names] for k, names in enumerate(captions)}
    shown_in = [0] * (1 + len(classes))
    while left and len(kept) < count:
        number = min(left, key=lambda k: min(shown_in[of] for of in left[k]))
        names, numbers = captions[number], left.pop(number)
        caption = model.caption(names, options.finding.template)
        noise = model.noise(1, options.seed, number)
        pictures, maps = draw(model, caption, noise, options.drawing)
        grey = pictures[0].mean(dim=0, keepdim=True)
        found = segmenter(grey, names, number)
        attended = otsu_masks(guided(resize(maps, model.size), grey[None], 1))[0]
        label = label_of(found, options.fill_holes)
        masks = torch.stack([label == 1 + place for place in range(len(names))])
        drawn += 1
        reason = _broken_rule(masks, attended, found.present, options)
        if not reason and options.only_named:
            shown = recogniser(grey, classes, number).present.tolist()
            others = [there for k, there in enumerate(shown, start=1) if k not in numbers]
            reason = "unnamed" if any(others) else ""
        if reason:
            dropped[reason] += 1
        else:
            values = torch.tensor([0, *numbers], dtype=torch.uint8)
            kept.append(DrawnPair(grey.cpu(), values[label.cpu()], tuple(names)))
            for of in numbers:
                shown_in[of] += 1
        if progress:
            progress(len(kept), count)
    return DrawnPairs(tuple(kept), drawn, dropped)


def label_of(found: Prompted, fill_holes: bool = False) -> Tensor:
    """(H, W) number of the word that is most probable at each place, from 1 on; 0: none.

    With ``fill_holes`` a place of none that words enclose is the innermost one's.
    """
    label = found.probability.mean(dim=0).argmax(dim=0)
    if fill_holes:
        words = range(1, found.probability.shape[1])
        filled = {k: torch.from_numpy(binary_fill_holes((label == k).cpu().numpy())) for k in words}
        for k in sorted(words, key=lambda k: int(filled[k].sum())):  # what is inside is smaller
            label = torch.where(filled[k].to(label.device) & (label == 0), k, label)
    return label


def _broken_rule(masks: Tensor, attended: Tensor, present: Tensor, options: PairOptions) -> str:
    """Which rule a pair breaks, if one."""
    area = masks.float().mean(dim=(1, 2))
    if not bool(present.all()) or not bool((area > 0).all()):
        return "absent"
    if bool((area > options.largest).any()):
        return "large"
    union = (masks | attended).sum(dim=(1, 2)).clamp_min(1)
    shared = (masks & attended).sum(dim=(1, 2)) / union
    return "agreement" if bool((shared < options.agreement).any()) else ""


def class_of(name: str, classes: Sequence[str]) -> int:
    """Number of the class that a thing's name ends with, from 1 on.

    Raises:
        UsageError: there is none.

    Example:
        >>> class_of("dark left kidney", ["liver", "kidney"])
        2
    """
    for number, known in enumerate(classes, start=1):
        if name == known or name.endswith(f" {known}"):
            return number
    raise UsageError("the words", f"{name!r} ends with no class", f"Classes: {', '.join(classes)}")


def otsu_masks(maps: Tensor) -> Tensor:
    """Maps (B, K, H, W) -> masks, each above its own threshold, the strongest where they overlap.

    The threshold is Otsu's ("A Threshold Selection Method from Gray-Level Histograms", 1979).
    """
    masks = torch.zeros(maps.shape, dtype=torch.bool, device=maps.device)
    scaled = maps - maps.amin(dim=(2, 3), keepdim=True)
    scaled = scaled / scaled.amax(dim=(2, 3), keepdim=True).clamp_min(1e-12)
    strongest = scaled.argmax(dim=1)
    for b in range(len(maps)):
        for k in range(maps.shape[1]):
            values = scaled[b, k]
            masks[b, k] = (values > otsu_threshold(values)) & (strongest[b] == k)
    return masks


def otsu_threshold(values: Tensor, bins: int = 64) -> float:
    """The threshold of values in [0, 1] that separates two groups best."""
    counts = torch.histc(values.float().cpu(), bins, 0.0, 1.0).double().numpy()
    centres = (np.arange(bins) + 0.5) / bins
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below * above * (means[0] - means[1]) ** 2
    return float((np.argmax(between) + 1) / bins)
