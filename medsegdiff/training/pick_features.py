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
    """A pick, and the share of the classes' variance that its features alone explain."""

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

    The score is that of a ridge regression to the classes, fitted to drawn voxels of half of the
    cases and applied to those of the other half, both ways round. Of a single case its voxels are
    halved instead, which flatters all pairs.

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
            scores = [explained(parts[i], parts[1 - i], num_classes) for i in (0, 1)]
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


def explained(known: DrawnVoxels, others: DrawnVoxels, num_classes: int) -> float:
    """Share of the variance of others' classes that a ridge regression to known ones explains.

    The mean over the classes that occur in both, background too; below 0 for worse than a mean.

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
    target, truth = (F.one_hot(v.classes, num_classes).float() for v in (known, others))
    gram = seen.T @ seen / len(seen) + RIDGE * torch.eye(seen.shape[1])
    weights = torch.linalg.solve(gram, seen.T @ target / len(seen))
    variance = truth.var(dim=0, correction=0)
    there = (variance > 0) & (target.var(dim=0) > 0)
    error = (unseen @ weights - truth).square().mean(dim=0)
    return float((1.0 - error / variance)[there].mean()) if there.any() else 0.0


def chosen_picks(scored: Sequence[ScoredPick], count: int) -> list[Pick]:
    """The best pick of each block, then the best others, up to ``count`` together.

    Fine blocks score low alone, but say where a structure ends.

    Args:
        scored: the best first.
        count: of picks.
    """
    best = {one.pick.level: one.pick for one in reversed(scored)}
    first = [one.pick for one in scored if best[one.pick.level] == one.pick]
    rest = [one.pick for one in scored if one.pick not in first]
    return [*first, *rest][:count]
