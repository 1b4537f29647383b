"""From a few labelled cases to fitted perceptrons: search, draw, fit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.transforms import Compose
from torch import Tensor

from medsegdiff.few_label.fit_perceptrons import draw_voxels, fit_mlps
from medsegdiff.few_label.location_search import search_locations
from medsegdiff.few_label.voxel_features import VoxelFeatures
from medsegdiff.few_label.voxel_mlps import VoxelMLPs
from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.training.seeding import seeded

Item = tuple[Tensor, Tensor]
"""Image (C', *spatial) and label map (1, *spatial)."""


@dataclass(frozen=True)
class FittedPerceptrons:
    """Perceptrons fitted to a few labelled cases.

    Attributes:
        features: Features that were chosen.
        mlps: Perceptrons fitted to the features, in evaluation mode.
        record: Record of the choice, its explained variance, voxels, loss and seconds.
    """

    features: VoxelFeatures
    mlps: VoxelMLPs
    record: dict[str, Any]


@dataclass(frozen=True)
class FewLabelLearner:
    """Settings with which perceptrons learn from a few cases.

    Attributes:
        noises: Shares of the time steps to choose from, in [0, 1].
        levels: Levels of the decoder to choose from, 0 the finest.
        locations: Number of pairs of the two that are taken, each the one that adds most.
        views: Number of images that voxels are drawn from: the cases, then augmented ones in turn.
        voxels: Number of voxels drawn from each view.
        steps: Number of steps of the fit.
        batch: Number of voxels of each perceptron in each step.
        members: Number of perceptrons.
        hidden: Widths of their hidden layers.
        dropout: Probability of dropout in them.
        seed: Seed of all randomness.
    """

    noises: Sequence[float]
    levels: Sequence[int]
    locations: int = 6
    views: int = 40
    voxels: int = 3000
    steps: int = 500
    batch: int = 512
    members: int = 8
    hidden: Sequence[int] = (32, 32)
    dropout: float = 0.1
    seed: int = 0

    def learn(
        self,
        network: ImageDiffusion,
        items: Sequence[Item],
        num_classes: int,
        augment: Compose | None = None,
    ) -> FittedPerceptrons:
        """Choose features, draw voxels, fit.

        Args:
            network: Trained network in evaluation mode.
            items: Labelled cases.
            num_classes: Number K of classes, background included.
            augment: Random chain over ``image`` and ``label``; None: no augmentation.
        """
        started = time.perf_counter()
        found = search_locations(
            network,
            items,
            self.noises,
            self.levels,
            num_classes,
            self.locations,
            self.voxels,
            self.seed,
        )
        chosen = [one.location for one in found]
        searched = time.perf_counter()
        features = VoxelFeatures(network, chosen, self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        voxels = draw_voxels(self._views(items, augment), features, self.voxels, generator)
        drawn = time.perf_counter()
        device = next(network.parameters()).device
        with seeded(self.seed, device):  # of weights and dropout
            mlps = VoxelMLPs(
                features.channels, num_classes, self.members, self.hidden, self.dropout
            ).to(device)
            loss = fit_mlps(mlps, voxels, self.steps, self.batch, generator=generator)
        record = {
            "locations": [list(location) for location in chosen],
            "explained": [round(one.score, 4) for one in found],
            "features": features.channels,
            "voxels": len(voxels.classes),
            "loss": loss,
            "seconds": {
                "search": searched - started,
                "draw": drawn - searched,
                "fit": time.perf_counter() - drawn,
            },
        }
        return FittedPerceptrons(features, mlps, record)

    def _views(self, items: Sequence[Item], augment: Compose | None) -> Iterator[Item]:
        """Cases, one at a time, as they are and augmented."""
        yield from items
        if augment is None:
            return
        augment.set_random_state(self.seed)
        for number in range(len(items), self.views):
            image, label = items[number % len(items)]
            view = augment({"image": image, "label": label})
            yield _plain(view["image"]), _plain(view["label"])


def _plain(values: Any) -> Tensor:
    return torch.as_tensor(values).as_subclass(Tensor)
