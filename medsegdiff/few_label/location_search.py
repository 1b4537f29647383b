"""Which time steps and decoder blocks tell the classes apart: a quick search on labelled cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.few_label.fit_perceptrons import DrawnVoxels, draw_voxels
from medsegdiff.few_label.voxel_features import FeatureLocation, VoxelFeatures
from medsegdiff.models.image_diffusion import ImageDiffusion

RIDGE = 1e-2
MOST_VOXELS = 30_000
"""Of all cases together, so that the search takes bounded memory."""


class ScoredLocation(NamedTuple):
    """A location, and the share of the classes' variance that it and those before it explain."""

    score: float
    location: FeatureLocation


class Moments(NamedTuple):
    """Moments of voxels for a ridge regression.

    Attributes:
        gram: Mean product (C, C) of two features.
        product: Mean product (C, K) of a feature and a class's indicator.
        share: Share (K,) of the voxels of each class.
    """

    gram: Tensor
    product: Tensor
    share: Tensor


def search_locations(
    network: ImageDiffusion,
    items: Sequence[tuple[Tensor, Tensor]],
    noises: Sequence[float],
    levels: Sequence[int],
    num_classes: int,
    count: int,
    per_case: int = 3000,
    seed: int = 0,
) -> list[ScoredLocation]:
    """Pairs of time step and block, one after the other: each the one that adds most.

    Judged by a ridge regression to the classes, fitted to drawn voxels of half of the cases and
    applied to those of the other half, both ways round. Of a single case its voxels are halved
    instead, which flatters all.

    Args:
        network: Network whose features are compared.
        items: Images (C', *spatial) and label maps (1, *spatial).
        noises: Shares of the time steps to choose from.
        levels: Levels of the decoder to choose from.
        num_classes: Number K of classes, background included.
        count: Number of pairs that are chosen; all, if there are fewer.
        per_case: Largest number of voxels drawn from each case.
        seed: Seed of noise and drawing.
    """
    locations = [FeatureLocation(noise, level) for noise in noises for level in levels]
    widths = [network.denoiser.unet.channels[location.level] for location in locations]
    voxels = _voxels(network, items, noises, levels, min(per_case, MOST_VOXELS // len(items)), seed)
    halves = [_moments(half, num_classes) for half in _halves(voxels, seed)]
    columns = dict(zip(locations, torch.arange(sum(widths)).split(widths), strict=True))
    chosen: list[ScoredLocation] = []
    used = torch.tensor([sum(widths)])  # the constant
    while len(chosen) < min(count, len(locations)):
        left = [
            location for location in locations if location not in [one.location for one in chosen]
        ]
        scores = [_both_ways(halves, torch.cat([used, columns[location]])) for location in left]
        best = max(range(len(left)), key=scores.__getitem__)
        chosen.append(ScoredLocation(scores[best], left[best]))
        used = torch.cat([used, columns[left[best]]])
    return chosen


def _voxels(
    network: ImageDiffusion,
    items: Sequence[tuple[Tensor, Tensor]],
    noises: Sequence[float],
    levels: Sequence[int],
    per_case: int,
    seed: int,
) -> list[DrawnVoxels]:
    """Of each case the same voxels at all time steps, with all features of these."""
    found = []
    for item in items:
        parts = []
        for noise in noises:
            features = VoxelFeatures(
                network, [FeatureLocation(noise, level) for level in levels], seed
            )
            generator = torch.Generator().manual_seed(seed)
            parts.append(draw_voxels([item], features, per_case, generator))
        found.append(DrawnVoxels(torch.cat([p.features for p in parts], dim=1), parts[0].classes))
    return found


def _halves(cases: Sequence[DrawnVoxels], seed: int) -> list[DrawnVoxels]:
    """Two halves of the cases, or of the voxels of a single one; features are standardised."""
    if len(cases) == 1:
        order = torch.randperm(len(cases[0].classes), generator=torch.Generator().manual_seed(seed))
        parts = [[DrawnVoxels(*(values[p] for values in cases[0]))] for p in order.chunk(2)]
    else:
        parts = [list(cases[0::2]), list(cases[1::2])]
    features = [torch.cat([case.features for case in part]).float() for part in parts]
    deviation, mean = torch.std_mean(torch.cat(features), dim=0)
    return [
        DrawnVoxels((f - mean) / deviation.clamp_min(1e-6), torch.cat([c.classes for c in part]))
        for f, part in zip(features, parts, strict=True)
    ]


def _moments(voxels: DrawnVoxels, num_classes: int) -> Moments:
    """Moments of features, and of a last one that is always 1."""
    x = F.pad(voxels.features, (0, 1), value=1.0)
    y = F.one_hot(voxels.classes, num_classes).float()
    return Moments(x.T @ x / len(x), x.T @ y / len(x), y.mean(dim=0))


def _both_ways(halves: Sequence[Moments], columns: Tensor) -> float:
    one, other = halves
    return (explained(one, other, columns) + explained(other, one, columns)) / 2.0


def explained(known: Moments, others: Moments, columns: Tensor) -> float:
    """Share of the variance of others' classes that a ridge regression to known ones explains.

    The mean over the classes that occur in both, background too; below 0 for worse than a mean.

    Args:
        known: Moments of the voxels to fit to.
        others: Moments of the voxels to evaluate on.
        columns: Indices of the features that are used.
    """
    gram, product = known.gram[columns][:, columns], known.product[columns]
    weights = torch.linalg.solve(gram + RIDGE * torch.eye(len(gram)), product)
    seen = (weights * (others.gram[columns][:, columns] @ weights)).sum(dim=0)
    error = others.share - 2.0 * (weights * others.product[columns]).sum(dim=0) + seen
    variance = others.share * (1.0 - others.share)
    there = (variance > 0) & (known.share > 0)
    return float((1.0 - error / variance)[there].mean()) if there.any() else 0.0
