"""Masks from perceptrons on a denoiser's features; the perceptrons are the ensemble."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from medsegdiff.core.storage import Storage
from medsegdiff.core.types import Fusion
from medsegdiff.few_label.voxel_features import VoxelFeatures
from medsegdiff.few_label.voxel_mlps import VoxelMLPs
from medsegdiff.models.precision import autocast
from medsegdiff.segmentation.ensemble import (
    Ensemble,
    RunningMoments,
    most_probable,
    stack_slices,
)

VOXELS_AT_ONCE = 2**14


class FewLabelInferer:
    """Each perceptron gives a mask; their majority is the ensemble's.

    Args:
        features: Features of an image, with the network.
        mlps: Perceptrons fitted to the features.
        window: Size of the images that the network was trained on, in voxels; a larger image is
            taken in windows that overlap by half.
        mirror_axes: Spatial axes; the result is the mean over mirror images along each subset.
        settings: Further settings, for the record of a case.
    """

    fusion: Fusion = "majority"

    def __init__(
        self,
        features: VoxelFeatures,
        mlps: VoxelMLPs,
        window: Sequence[int],
        mirror_axes: Sequence[int] = (),
        settings: dict[str, Any] | None = None,
    ) -> None:
        self.features, self.mlps, self.window = features, mlps.eval(), tuple(window)
        axes = range(len(mirror_axes) + 1)
        self.mirrors = [[1 + a for a in c] for n in axes for c in combinations(mirror_axes, n)]
        self.further = dict(settings or {})

    @property
    def settings(self) -> dict[str, Any]:
        """See ``EnsembleInferer.settings``; there are neither steps nor a sampler."""
        return {
            "members": self.mlps.num_members,
            "fusion": self.fusion,
            "seed": self.features.seed,
            "steps": None,
            "sampler": None,
            "locations": [list(pick) for pick in self.features.locations],
            **self.further,
        }

    def check(self, network: nn.Module) -> None:
        """There is nothing to refuse: the perceptrons were fitted to this network."""

    @torch.no_grad()
    def ensemble(
        self,
        image: Tensor,
        network: nn.Module,
        case: str,
        storage: Storage | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Ensemble:
        """Statistics of the perceptrons on one image (C, *spatial); see ``EnsembleInferer``.

        Of a volume and a network of planes, slice by slice along the last axis. The anchor is the
        mean: there is no deterministic pass.
        """
        started = time.perf_counter()
        slices = image.shape[1 + len(self.window) :]
        if slices:
            planes = (self._plane(image[..., z]) for z in range(slices[0]))
            found = stack_slices(planes, slices[0], storage or Storage())
        else:
            found = self._plane(image)
        found.seconds.update(encode=0.0, sample=time.perf_counter() - started)
        found.windows.update(run=slices[0] if slices else 1, skipped=0)
        return found

    def _plane(self, image: Tensor) -> Ensemble:
        """Statistics of an image of the network's own dimensions, on the CPU."""
        if all(n <= w for n, w in zip(image.shape[1:], self.window, strict=True)):
            probability = self.probability(image)
        else:
            flat = sliding_window_inference(
                image[None],
                self.window,
                1,
                lambda window: self.probability(window[0]).flatten(0, 1)[None],
                overlap=0.5,
                mode="gaussian",
            )
            shape = (self.mlps.num_members, self.mlps.num_classes)
            probability = torch.as_tensor(flat)[0].unflatten(0, shape)
        moments = RunningMoments()
        moments.update(probability)
        return Ensemble(moments.mean, moments.variance, moments.mean, most_probable(probability))

    @torch.no_grad()
    def probability(self, image: Tensor) -> Tensor:
        """Image (C, *spatial) -> (M, K, *spatial) of each perceptron, on the CPU.

        It is the mean over the mirror images.
        """
        total = torch.zeros(())
        for flips in self.mirrors:
            seen = self.features(image.flip(flips)).flatten(1)
            with autocast(self.features.network.precision, seen.device):
                parts = [self.mlps(part.T).float().cpu() for part in seen.split(VOXELS_AT_ONCE, 1)]
            found = torch.cat(parts, dim=1).softmax(dim=-1)
            found = found.transpose(1, 2).unflatten(2, image.shape[1:])
            total = total + found.flip([axis + 1 for axis in flips])
        return total / len(self.mirrors)
