"""Perceptrons on a denoiser's features, fitted to voxels of a few labelled cases.

Baranchuk et al., "Label-Efficient Semantic Segmentation with Diffusion Models", ICLR 2022. There
the features of all pixels are in memory at once, 210 GB for 50 images; here they are made image by
image, and only those of drawn voxels are kept, in half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.few_label.voxel_mlps import VoxelMLPs

Features = Callable[[Tensor], Tensor]
"""Image (C', *spatial) -> features (C, *spatial)."""

REACH = 3
"""Voxels around a structure that count as near it."""
SHOWN = 50_000
"""Voxels that mean and deviation of the features are taken from, about."""


class DrawnVoxels(NamedTuple):
    """Voxels of labelled cases.

    Attributes:
        features: Features (V, C), half precision.
        classes: Class numbers (V,).
    """

    features: Tensor
    classes: Tensor


def draw_voxels(
    items: Iterable[tuple[Tensor, Tensor]],
    features: Features,
    per_item: int,
    generator: torch.Generator | None = None,
) -> DrawnVoxels:
    """Features of some voxels of each image, half of them in or near a structure.

    Args:
        items: Images (C', *spatial) and their label maps (1, *spatial), one at a time.
        features: Function that gives the features of an image.
        per_item: Number of voxels of each image, fewer if an image has fewer.
        generator: Generator of the choice.
    """
    kept, classes = [], []
    for image, label in items:
        chosen = _chosen(label[0], per_item, generator)
        seen = features(image).flatten(1)
        kept.append(seen[:, chosen.to(seen.device)].T.half().cpu())
        classes.append(label.flatten()[chosen].long())
    return DrawnVoxels(torch.cat(kept), torch.cat(classes))


def _chosen(label: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Numbers of different voxels of a label map (*spatial), at most ``count``."""
    pool = F.max_pool2d if label.ndim == 2 else F.max_pool3d
    marked = (label > 0)[None, None].float()
    near = pool(marked, 2 * REACH + 1, stride=1, padding=REACH).flatten().bool()
    inside = near.nonzero()[:, 0]
    first = inside[torch.randperm(len(inside), generator=generator)[: count // 2]]
    free = torch.ones(label.numel(), dtype=torch.bool)
    free[first] = False
    others = free.nonzero()[:, 0]
    rest = others[torch.randperm(len(others), generator=generator)[: count - len(first)]]
    return torch.cat([first, rest])


def fit_mlps(
    mlps: VoxelMLPs,
    voxels: DrawnVoxels,
    steps: int,
    batch: int = 512,
    learning_rate: float = 3e-3,
    generator: torch.Generator | None = None,
) -> float:
    """Fit all perceptrons by cross-entropy, each by batches of its own.

    Args:
        mlps: Perceptrons to fit, on any device.
        voxels: Voxels to learn from.
        steps: Number of steps of AdamW, with a cosine decay.
        batch: Number of voxels of each perceptron in each step.
        learning_rate: Learning rate of the first step.
        generator: Generator of the batches.

    Returns:
        The mean loss of the last tenth of the steps.
    """
    every = max(1, len(voxels.classes) // SHOWN)
    mlps.standardise(voxels.features[::every])
    mlps.train()
    device = mlps.mean.device
    optimizer = torch.optim.AdamW(mlps.parameters(), lr=learning_rate, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses: list[float] = []
    for _ in range(steps):
        number = mlps.num_members * batch
        drawn = torch.randint(len(voxels.classes), (number,), generator=generator)
        seen = voxels.features[drawn].to(device).unflatten(0, (mlps.num_members, batch))
        logits = mlps.of_each(seen)
        loss = F.cross_entropy(logits.flatten(0, 1), voxels.classes[drawn].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(float(loss.detach()))
    mlps.eval()
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)
