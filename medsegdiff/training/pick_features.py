"""Which time steps and decoder blocks tell the classes apart: a quick search on labelled cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.image_model import ImageDiffusion
from medsegdiff.training.few_labels import DrawnVoxels, draw_voxels
from medsegdiff.voxel_features import Pick, VoxelFeatures

RIDGE = 1e-2


class ScoredPick(NamedTuple):
    """A pick, and the mean Dice over the foreground that its features alone reach."""

    score: float
    pick: Pick


def scored_picks(
    network: ImageDiffusion,
    items: Sequence[tuple[Tensor, Tensor]],
    noises: Sequence[float],
    levels: Sequence[int],
    num_classes: int,
    per_case: int = 3000,
    seed: int = 0,
) -> list[ScoredPick]:
    """Every pair of time step and block with its score, the best first.

    The score is the mean foreground Dice, over drawn voxels, of a ridge regression to the classes,
    fitted to half of the cases and applied to the other half, both ways round. Of a single case
    its voxels are halved instead, which flatters all pairs alike.

    Args:
        network: whose features are judged.
        items: images (C', *spatial) and label maps (1, *spatial).
        noises: shares of the time steps.
        levels: of the decoder.
        num_classes: K.
        per_case: voxels drawn of each case.
        seed: of noise and drawing; all pairs are judged by the same voxels.
    """
    found = []
    for noise in noises:
        picks = [Pick(noise, level) for level in levels]
        features = VoxelFeatures(network, picks, seed)
        generator = torch.Generator().manual_seed(seed)
        cases = [draw_voxels([item], features, per_case, generator) for item in items]
        halves = _halves(cases, generator)
        widths = [network.denoiser.unet.channels[level] for level in levels]
        columns = torch.arange(features.channels).split(widths)
        for pick, column in zip(picks, columns, strict=True):
            parts = [DrawnVoxels(h.features[:, column].float(), h.classes) for h in halves]
            scores = [ridge_dice(parts[i], parts[1 - i], num_classes) for i in (0, 1)]
            found.append(ScoredPick(sum(scores) / 2.0, pick))
    return sorted(found, key=lambda one: -one.score)


def _halves(cases: Sequence[DrawnVoxels], generator: torch.Generator) -> list[DrawnVoxels]:
    """Two halves of the cases; of the voxels of a single one."""
    if len(cases) == 1:
        order = torch.randperm(len(cases[0].classes), generator=generator)
        return [DrawnVoxels(*(values[part] for values in cases[0])) for part in order.chunk(2)]
    parts = (cases[0::2], cases[1::2])
    return [
        DrawnVoxels(torch.cat([c.features for c in p]), torch.cat([c.classes for c in p]))
        for p in parts
    ]


def ridge_dice(known: DrawnVoxels, others: DrawnVoxels, num_classes: int) -> float:
    """Mean foreground Dice on other voxels of a ridge regression fitted to known ones.

    Args:
        known: to fit to.
        others: to judge by.
        num_classes: K.
    """
    deviation, mean = torch.std_mean(known.features, dim=0)
    seen, unseen = (
        F.pad((voxels.features - mean) / deviation.clamp_min(1e-6), (0, 1), value=1.0)
        for voxels in (known, others)
    )
    target = F.one_hot(known.classes, num_classes).float()
    gram = seen.T @ seen / len(seen) + RIDGE * torch.eye(seen.shape[1])
    weights = torch.linalg.solve(gram, seen.T @ target / len(seen))
    guess = (unseen @ weights).argmax(dim=1)
    dice = [_dice(guess == k, others.classes == k) for k in range(1, num_classes)]
    return sum(dice) / len(dice)


def _dice(guess: Tensor, truth: Tensor) -> float:
    return 2.0 * float((guess & truth).sum()) / max(1.0, float(guess.sum() + truth.sum()))
