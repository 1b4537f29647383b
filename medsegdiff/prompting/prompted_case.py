"""One case found by words: from its files to maps on its own grid, slice by slice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from monai.transforms import Compose, Orientationd
from torch import Tensor

from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.formats import is_photograph
from medsegdiff.data.images import read_geometry
from medsegdiff.data.transforms import LoadCased, load, restore
from medsegdiff.prompting.intensities import as_picture
from medsegdiff.prompting.word_segmenter import FindWords
from medsegdiff.segmentation.ensemble import RunningMoments, most_probable, predictive_entropy
from medsegdiff.segmentation.segmented_case import SegmentedCase

Axis = Literal["axial", "coronal", "sagittal"]
"""The plane of a volume's slices."""

_ALONG: dict[Axis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True)
class FoundWords:
    """Where words were found.

    Attributes:
        case: its maps; class k is the k-th word.
        slices: (K,) in how many slices each word is taken to be.
        of: how many slices there are.
    """

    case: SegmentedCase
    slices: tuple[int, ...]
    of: int


def find_words(
    case: CaseInput,
    segmenter: FindWords,
    names: Sequence[str],
    axis: Axis = "axial",
    progress: Callable[[int, int], None] | None = None,
) -> FoundWords:
    """Load a case, find words in its slices, and bring the maps back to its own grid.

    Slices are shown as radiologists see them: the patient's right at the left, the front or the
    head up. A 2D image is one slice, its first axis from left to right.

    Args:
        case: its name and files.
        segmenter: finds them in a picture.
        names: what to find.
        axis: plane of the slices of a volume.
        progress: told after each slice how many are done, and of how many.

    Raises:
        InputError: the case's files cannot be used.
        UsageError: no names, or more than the model reads.
    """
    started = time.perf_counter()
    chain = picture_chain(case)
    item = load(chain, {"case": case.id, "image": list(case.image)})
    image = item["image"]
    plain = as_picture(torch.as_tensor(image.as_tensor()))
    loaded = time.perf_counter()
    volume = plain if plain.ndim == 4 else plain[..., None]
    turn = _Turn(axis if plain.ndim == 4 else None)
    pictures = turn.pictures(volume)
    stacks: list[list[Tensor]] = [[], [], []]
    slices = torch.zeros(len(names), dtype=torch.long)
    for number, picture in enumerate(pictures):
        found = segmenter(picture, names, number)
        moments = RunningMoments()
        moments.update(found.probability)
        labels = most_probable(found.probability)
        for stack, values in zip(stacks, (moments.mean, moments.variance, labels), strict=True):
            stack.append(values.cpu())
        slices += found.present
        if progress:
            progress(number + 1, len(pictures))
    mean, variance, labels = (turn.volume(torch.stack(stack)) for stack in stacks)
    sampled = time.perf_counter()

    def back(maps: Tensor, mode: Literal["bilinear", "nearest"] = "bilinear") -> np.ndarray:
        return restore(maps if plain.ndim == 4 else maps[..., 0], image, chain, mode=mode)

    means = back(mean)
    means = np.clip(means, 0.0, 1.0) / np.clip(means, 0.0, 1.0).sum(axis=0).clip(1e-6)
    mask = most_probable(torch.from_numpy(means)[None])[0].numpy()
    return FoundWords(
        SegmentedCase(
            geometry=item["geometry"],
            image=back(plain if plain.ndim == 4 else volume),
            mask=mask,
            mean=means,
            variance=back(variance).clip(0.0, 0.25),
            entropy=predictive_entropy(torch.from_numpy(means)).numpy(),
            anchor=None,
            members=back(labels.float(), "nearest").astype(np.uint8),
            seconds={"load": loaded - started, "sample": sampled - loaded},
            windows={"run": len(pictures), "skipped": 0},
        ),
        tuple(int(n) for n in slices),
        len(pictures),
    )


def picture_chain(
    case: CaseInput, labels: Mapping[int, str] | None = None, raters: int = 1
) -> Compose:
    """MONAI chain from a case's files to ``image``, and ``label`` if it has one.

    Volumes are brought to LPS, so that slices can be cut as radiologists see them.
    """
    photograph = is_photograph(case.image[0])
    channels = 3 if photograph else len(case.image)
    axes = len(read_geometry(case.image[0]).shape)
    steps: list[object] = [LoadCased(axes, channels, labels, raters)]
    if axes == 3:
        steps.append(Orientationd(["image", "label"], "LPS", labels=None, allow_missing_keys=True))
    return Compose(steps)


def slices_of(values: Tensor, axis: Axis) -> Tensor:
    """Maps (C, X, Y) or in LPS (C, X, Y, Z) -> (slices, C, rows, columns)."""
    if values.ndim == 3:
        return _Turn(None).pictures(values[..., None])
    return _Turn(axis).pictures(values)


class _Turn:
    """Slices of an LPS volume as pictures (rows from above, columns from the left), and back."""

    def __init__(self, axis: Axis | None) -> None:
        self.along = 2 if axis is None else _ALONG[axis]
        self.upside_down = axis in ("coronal", "sagittal")

    def pictures(self, volume: Tensor) -> Tensor:
        """(C, X, Y, Z) -> (slices, C, rows, columns)."""
        turned = volume.movedim(1 + self.along, 0).transpose(-1, -2)
        return turned.flip(-2) if self.upside_down else turned

    def volume(self, pictures: Tensor) -> Tensor:
        """(slices, C, rows, columns) -> (C, X, Y, Z)."""
        turned = pictures.flip(-2) if self.upside_down else pictures
        return turned.transpose(-1, -2).movedim(0, 1 + self.along).contiguous()
