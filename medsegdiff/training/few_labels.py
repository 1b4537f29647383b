"""Perceptrons on a denoiser's features, fitted to the voxels of a few labelled cases.

Baranchuk et al., "Label-Efficient Semantic Segmentation with Diffusion Models", ICLR 2022. Features are made case by case, and
only those of drawn voxels are kept, in half precision: 20 cases of 12,000 voxels and 900 features take 0.4 GiB, where
all voxels would take 6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medsegdiff.networks.voxel_mlps import VoxelMLPs

Features = Callable[[Tensor], Tensor]
"""Image (C', *spatial) -> features (C, *spatial)."""


@dataclass(frozen=True)
class DrawnVoxels:
    """Voxels of labelled cases.

    Attributes:
        features: (V, C), half precision.
        classes: (V,) class numbers.
    """

    features: Tensor
    classes: Tensor


def draw_voxels(
    items: Iterable[tuple[Tensor, Tensor]],
    features: Features,
    per_case: int,
    mirror_axes: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> DrawnVoxels:
    """Features of some voxels of each case: half of them marked or near a mark, half anywhere.

    Args:
        items: images (C', *spatial) and label maps (1, *spatial).
        features: of an image.
        per_case: voxels drawn of each case and mirror image, at most.
        mirror_axes: spatial axes along which a case is shown mirrored, too, one after the other.
        generator: of the choice.
    """
    kept: list[Tensor] = []
    classes: list[Tensor] = []
    for image, label in items:
        for axes in [(), *((axis,) for axis in mirror_axes)]:
            flips = [1 + axis for axis in axes]
            seen = features(image.flip(flips)).flatten(1)
            marks = label.flip(flips)
            chosen = _chosen(marks[0], per_case, generator)
            kept.append(seen[:, chosen.to(seen.device)].T.half().cpu())
            classes.append(marks.flatten()[chosen].long())
    return DrawnVoxels(torch.cat(kept), torch.cat(classes))


def _chosen(label: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Indices of voxels of a label map (*spatial)."""
    pool = F.max_pool2d if label.ndim == 2 else F.max_pool3d
    near = pool((label > 0)[None, None].float(), 7, stride=1, padding=3).flatten().bool()
    inside, anywhere = near.nonzero()[:, 0], torch.arange(label.numel())
    half = count // 2
    parts = [
        part[torch.randperm(len(part), generator=generator)[:n]]
        for part, n in ((inside, half), (anywhere, count - half))
    ]
    return torch.cat(parts)


def fit_mlps(
    mlps: VoxelMLPs,
    voxels: DrawnVoxels,
    steps: int,
    batch: int = 2048,
    learning_rate: float = 3e-3,
    generator: torch.Generator | None = None,
) -> float:
    """Fit all perceptrons by cross-entropy.

    Args:
        mlps: to be fitted.
        voxels: to learn from.
        steps: of Adam, with a cosine decay.
        batch: voxels a step.
        learning_rate: at the start.
        generator: of the drawing.

    Returns:
        The loss of the last tenth of the steps.
    """
    mlps.standardise(voxels.features[:: max(1, len(voxels.features) // 50_000)])
    mlps.train()
    optimizer = torch.optim.AdamW(mlps.parameters(), lr=learning_rate, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses: list[float] = []
    for _ in range(steps):
        drawn = torch.randint(len(voxels.classes), (batch,), generator=generator)
        logits = mlps(voxels.features[drawn])
        wanted = voxels.classes[drawn].expand(len(logits), -1)
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(float(loss.detach()))
    mlps.eval()
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)
