"""Images drawn from captions, with masks of the named things, as training data for a segmenter.

After Wu et al., "DiffuMask: Synthesizing Images with Pixel-level Annotations for Semantic
Segmentation Using Diffusion Models", ICCV 2023: cross-attention during drawing, an adaptive
threshold, refinement, and removal of noisy pairs.
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
from medsegdiff.prompting.prompt_options import PromptOptions
from medsegdiff.prompting.refine import guided
from medsegdiff.prompting.word_segmenter import Prompted, PromptSegmenter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairOptions:
    """Options of drawing and keeping pairs.

    Args:
        drawing: Options of drawing the pictures.
        finding: Options of finding words in a finished picture, which gives its masks.
        agreement: Least intersection over union, for every word, between its mask and the place of
            its attention during drawing.
        only_named: Whether to leave out pictures in which a class is found that the caption does
            not name.
        fill_holes: Whether a hole in a thing's mask is part of the mask, as for organs with a dark
            inside.
        largest: Greatest share of the picture that a mask may cover.
        seed: Seed; a pair depends only on it and on the pair's number.
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
        picture: Grey picture (1, H, W) in [-1, 1].
        label: Class numbers (H, W), uint8.
        names: Names in the caption.
    """

    picture: Tensor
    label: Tensor
    names: tuple[str, ...]


@dataclass(frozen=True)
class DrawnPairs:
    """The pairs that were kept, and the numbers of drawn and dropped ones.

    Attributes:
        kept: Pairs in the order in which they were drawn.
        drawn: Number of drawn pairs.
        dropped: Reason -> number of dropped pairs; reasons are ``absent``, ``unnamed``, ``large``,
            ``agreement``.
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
    """Draw pairs until ``count`` are kept, or all captions have been drawn.

    The next caption names the class that has been kept least, as long as there are such captions,
    so that the data also contain classes that are hard to draw. A class that is never kept uses up
    its captions first.

    Args:
        model: Networks of the pipeline.
        captions: Names of the things of each picture, such as ``["dark liver", "lesion"]``.
        classes: Names of the classes in the order of their numbers, from 1 on; the name of each
            thing ends with one of them.
        count: Number of pairs to keep.
        options: Options of drawing and keeping.
        progress: Callback after each pair, called with the number kept and the total.

    Raises:
        UsageError: the name of a thing ends with no class.
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
    """(H, W) number of the most probable word at each place, from 1 on; 0 for no word.

    With ``fill_holes``, a place without a word inside one or more words gets the innermost of them.
    """
    label = found.probability.mean(dim=0).argmax(dim=0)
    if fill_holes:
        words = range(1, found.probability.shape[1])
        filled = {k: torch.from_numpy(binary_fill_holes((label == k).cpu().numpy())) for k in words}
        for k in sorted(words, key=lambda k: int(filled[k].sum())):  # the inner word is smaller
            label = torch.where(filled[k].to(label.device) & (label == 0), k, label)
    return label


def _broken_rule(masks: Tensor, attended: Tensor, present: Tensor, options: PairOptions) -> str:
    """Name of the first rule that a pair breaks; empty if it breaks none."""
    area = masks.float().mean(dim=(1, 2))
    if not bool(present.all()) or not bool((area > 0).all()):
        return "absent"
    if bool((area > options.largest).any()):
        return "large"
    union = (masks | attended).sum(dim=(1, 2)).clamp_min(1)
    shared = (masks & attended).sum(dim=(1, 2)) / union
    return "agreement" if bool((shared < options.agreement).any()) else ""


def class_of(name: str, classes: Sequence[str]) -> int:
    """Number, from 1 on, of the class that a thing's name ends with.

    Raises:
        UsageError: the name ends with no class.

    Example:
        >>> class_of("dark left kidney", ["liver", "kidney"])
        2
    """
    for number, known in enumerate(classes, start=1):
        if name == known or name.endswith(f" {known}"):
            return number
    raise UsageError("the words", f"{name!r} ends with no class", f"Classes: {', '.join(classes)}")


def otsu_masks(maps: Tensor) -> Tensor:
    """Masks of maps (B, K, H, W), each above its own threshold; the strongest map wins an overlap.

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
    """The threshold that best separates values in [0, 1] into two groups."""
    counts = torch.histc(values.float().cpu(), bins, 0.0, 1.0).double().numpy()
    centres = (np.arange(bins) + 0.5) / bins
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below * above * (means[0] - means[1]) ** 2
    return float((np.argmax(between) + 1) / bins)
