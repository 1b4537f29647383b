"""Masks from perceptrons on a denoiser's features, with the perceptrons as the ensemble."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import product

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor

from medsegdiff.inference.ensemble import Ensemble, RunningMoments, most_probable
from medsegdiff.networks.voxel_mlps import VoxelMLPs
from medsegdiff.storage import Storage
from medsegdiff.types import Fusion
from medsegdiff.voxel_features import VoxelFeatures

VOXELS_AT_ONCE = 2**15


class FewLabelInferer:
    """Each perceptron draws a mask; their mean and majority are the ensemble's.

    Args:
        features: of an image, with the network.
        mlps: fitted to them.
        window: voxels of the images that the network has learned from; larger images are taken in
            windows that overlap by half.
        mirror_axes: the image is seen mirrored along each subset of these, too, and averaged.
    """

    fusion: Fusion = "majority"

    def __init__(
        self,
        features: VoxelFeatures,
        mlps: VoxelMLPs,
        window: Sequence[int],
        mirror_axes: Sequence[int] = (),
    ) -> None:
        self.features, self.mlps, self.window = features, mlps.eval(), tuple(window)
        self.mirrors = [
            [1 + axis for axis, used in zip(mirror_axes, flags, strict=True) if used]
            for flags in product((False, True), repeat=len(mirror_axes))
        ]

    @torch.no_grad()
    def ensemble(
        self,
        image: Tensor,
        network: torch.nn.Module,
        case: str,
        storage: Storage | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Ensemble:
        """The ensemble of one image (C, *spatial); see ``EnsembleInferer.ensemble``."""
        started = time.perf_counter()
        seen = image.to(next(network.parameters()).device)
        if all(n <= w for n, w in zip(seen.shape[1:], self.window, strict=True)):
            probability = self.probability(seen)
        else:
            flat: Tensor = sliding_window_inference(
                seen[None],
                self.window,
                1,
                lambda window: self.probability(window[0]).flatten(0, 1)[None],
                overlap=0.5,
                mode="gaussian",
            )  # type: ignore[assignment]
            probability = flat[0].unflatten(0, (self.mlps.num_members, self.mlps.num_classes))
        moments = RunningMoments()
        moments.update(probability)
        return Ensemble(
            mean=moments.mean.cpu(),
            variance=moments.variance.cpu(),
            anchor=moments.mean.cpu(),
            labels=most_probable(probability).cpu(),
            seconds={"encode": 0.0, "sample": time.perf_counter() - started},
            windows={"run": 1, "skipped": 0},
        )

    @torch.no_grad()
    def probability(self, image: Tensor) -> Tensor:
        """Image (C, *spatial) -> (M, K, *spatial) of each perceptron, a mean over mirror images."""
        total = torch.zeros(())
        for flips in self.mirrors:
            seen = self.features(image.flip(flips)).flatten(1).T
            parts = [self.mlps(part).softmax(dim=-1) for part in seen.split(VOXELS_AT_ONCE)]
            found = torch.cat(parts, dim=1).transpose(1, 2).unflatten(2, image.shape[1:])
            total = total + found.flip([axis + 1 for axis in flips])
        return total / len(self.mirrors)
