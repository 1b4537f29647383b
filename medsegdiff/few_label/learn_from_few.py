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
    """What came of it.

    Attributes:
        features: those that were chosen.
        mlps: fitted to them, in evaluation mode.
        record: what was chosen and what it explains, voxels, loss, seconds; for people.
    """

    features: VoxelFeatures
    mlps: VoxelMLPs
    record: dict[str, Any]


@dataclass(frozen=True)
class FewLabelLearner:
    """How perceptrons learn from a few cases.

    Attributes:
        noises: shares of the time steps to choose from.
        levels: of the decoder to choose from, 0 the finest.
        locations: pairs of the two that are taken, each the one that adds most to those before it.
        views: images that voxels are drawn from: each case as it is, then augmented ones in turn.
        voxels: drawn of a view.
        steps: of the fit.
        batch: voxels that each perceptron sees a step.
        members: perceptrons.
        hidden: widths of their layers.
        dropout: in them.
        seed: of everything.
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
            network: trained, in evaluation mode.
            items: the labelled cases.
            num_classes: K.
            augment: random chain over ``image`` and ``label``; without one, cases are seen as they
                are.
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
