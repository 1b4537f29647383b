"""Choose a few members that represent many well.

Sixteen independent samples of a distribution of masks are on average a sixteenth of their diversity
further from it, in GED^2, than the distribution itself. Sixteen chosen from many more, so that
the energy distance between the chosen and all is small, are much nearer (support points, Mak &
Joseph 2018). Sampling a mask is cheap here, since the image is encoded once.
"""

from __future__ import annotations

import torch
from torch import Tensor

VOXELS_AT_ONCE = 2**20


def jaccard_distances(labels: Tensor, num_classes: int) -> Tensor:
    """Jaccard distance 1 - IoU of each two label maps, the mean over the foreground classes.

    Two empty masks have distance 0.

    Args:
        labels: Label maps (M, *spatial) uint8.
        num_classes: Number K of classes, background included.

    Returns:
        Distances (M, M) float64 in [0, 1].

    Example:
        >>> jaccard_distances(torch.tensor([[0, 1, 1], [1, 1, 0], [0, 0, 0]]), 2)[0]
        tensor([0.0000, 0.6667, 1.0000], dtype=torch.float64)
    """
    row = max(1, labels[0, 0].numel() * len(labels))
    distances = torch.zeros(len(labels), len(labels), dtype=torch.float64)
    for k in range(1, num_classes):
        overlap = torch.zeros_like(distances)
        for part in labels.split(max(1, VOXELS_AT_ONCE // row), dim=1):
            marked = (part == k).flatten(1).float()
            overlap += marked @ marked.T
        size = overlap.diagonal()
        union = size[:, None] + size[None] - overlap
        distances += torch.where(union > 0, 1.0 - overlap / union, 0.0)
    return distances / max(num_classes - 1, 1)


def representatives(
    distances: Tensor, count: int, diversity_weight: float = 1.0, groups: int = 1
) -> list[int]:
    """Indices of those of M members that represent all of them best, the most typical first.

    Members are taken one by one. Each time the one is taken that most lowers the energy distance
    between the taken and all: twice the mean distance to all, less ``diversity_weight`` times the
    mean distance among the taken (greedy support points: Mak & Joseph 2018, eq. 4; herding, Chen et
    al. 2010). So the first few of the result are a good choice of that number.

    Args:
        distances: Distances (M, M) between members, symmetric, 0 on the diagonal.
        count: Number of members to take, up to M.
        diversity_weight: Weight of the diversity; 1: the chosen are as diverse as all members. At a
            lower weight they are nearer to the middle, at 0 those nearest to all others.
        groups: Number G of groups; member m is of group m modulo G, and so is the m-th that is
            taken.

    Returns:
        Indices of the chosen members.

    Raises:
        ValueError: ``count`` is greater than M, or M no multiple of G.

    Example:
        >>> spots = torch.arange(9.0)
        >>> representatives((spots[:, None] - spots).abs(), 3)
        [4, 2, 7]
    """
    if count > len(distances):
        raise ValueError(f"count must be at most {len(distances)}, all members. Got {count}.")
    if len(distances) % groups:
        raise ValueError(f"the number of members must be a multiple of {groups}, the groups.")
    to_all = distances.mean(dim=1)
    to_taken = torch.zeros_like(to_all)
    taken: list[int] = []
    for n in range(1, count + 1):
        gain = n * to_all - diversity_weight * to_taken
        gain[taken] = torch.inf
        gain[[m for m in range(len(gain)) if m % groups != (n - 1) % groups]] = torch.inf
        best = int(gain.argmin())
        taken.append(best)
        to_taken = to_taken + distances[best]
    return taken
