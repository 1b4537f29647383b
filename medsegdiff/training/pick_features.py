"""Which noise levels and decoder blocks tell the classes apart: a quick search on labelled cases."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.voxel_features import Pick, VoxelFeatures
from medsegdiff.training.few_labels import draw_voxels

RIDGE = 1e-2


def scored_picks(
    make: VoxelFeatures,
    items: Sequence[tuple[Tensor, Tensor]],
    noises: Sequence[float],
    levels: Sequence[int],
    num_classes: int,
    per_case: int = 3000,
    seed: int = 0,
) -> list[tuple[float, Pick]]:
    """Every pair of noise and level with its score, the best first.

    The score is the mean foreground Dice over drawn voxels of a ridge regression to the classes,
    fitted on half of the cases and applied to the other, both ways round. Of a single case, its
    voxels are halved instead, which flatters all picks alike.

    Args:
        make: with the network; its own picks do not matter.
        items: images (C', *spatial) and label maps (1, *spatial).
        noises: shares of the forward process.
        levels: of the decoder.
        num_classes: K.
        per_case: voxels drawn of each case.
        seed: of the drawing.
    """
    found = []
    for noise, level in product(noises, levels):
        pick = Pick(noise, level)
        features = VoxelFeatures(make.network, [pick], make.seed)
        generator = torch.Generator().manual_seed(seed)
        cases = [draw_voxels([item], features, per_case, (), generator) for item in items]
        if len(cases) == 1:
            order = torch.randperm(len(cases[0].classes), generator=generator)
            halves = [[(cases[0].features[p], cases[0].classes[p])] for p in order.chunk(2)]
        else:
            pairs = [(case.features, case.classes) for case in cases]
            halves = [pairs[0::2], pairs[1::2]]
        both = [
            (torch.cat([f for f, _ in half]).float(), torch.cat([c for _, c in half]))
            for half in halves
        ]
        scores = [_ridge_dice(*both[i], *both[1 - i], num_classes) for i in (0, 1)]
        found.append((sum(scores) / 2.0, pick))
    return sorted(found, key=lambda one: -one[0])


def _ridge_dice(
    features: Tensor, classes: Tensor, others: Tensor, truth: Tensor, num_classes: int
) -> float:
    deviation, mean = torch.std_mean(features, dim=0)
    seen, unseen = ((f - mean) / deviation.clamp_min(1e-6) for f in (features, others))
    seen, unseen = (F.pad(f, (0, 1), value=1.0) for f in (seen, unseen))
    target = F.one_hot(classes, num_classes).float()
    gram = seen.T @ seen / len(seen) + RIDGE * torch.eye(seen.shape[1])
    weights = torch.linalg.solve(gram, seen.T @ target / len(seen))
    guess = (unseen @ weights).argmax(dim=1)
    dice = [
        2.0 * float(((guess == k) & (truth == k)).sum())
        / max(1.0, float((guess == k).sum() + (truth == k).sum()))
        for k in range(1, num_classes)
    ]
    return sum(dice) / len(dice)
