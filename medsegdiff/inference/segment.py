"""One case: from its files to the ensemble's maps on its own grid."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from monai.transforms import Compose
from numpy.typing import NDArray

from medsegdiff.data.transforms import load, restore
from medsegdiff.inference.ensemble import predictive_entropy
from medsegdiff.inference.fusion import fuse
from medsegdiff.inference.inputs import CaseInput
from medsegdiff.inference.sliding_window import EnsembleInferer
from medsegdiff.model import DiffusionSegmenter
from medsegdiff.recalibration.scaling import Scaling
from medsegdiff.types import Fusion, Geometry

VALUES_AT_ONCE = 2**24
"""How many voxels are brought back to the input's grid together."""

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class SegmentedCase:
    """All maps of one case, on the grid of its input.

    Attributes:
        geometry: of the input.
        image: (C, *shape) intensities as the network saw them.
        mask: (*shape) label map of the ensemble, fused from its members as the inferer says.
        mean: (K, *shape) in [0, 1], summing to 1; calibrated if a scaling was given.
        variance: (K, *shape) in [0, 0.25], over members.
        entropy: (*shape) of the mean, in nats.
        anchor: (*shape) label map of the deterministic pass.
        members: (N, *shape) label map of each member.
        seconds: spent in ``load``, ``encode`` and ``sample``.
    """

    geometry: Geometry
    image: Floats
    mask: Labels
    mean: Floats
    variance: Floats
    entropy: Floats
    anchor: Labels
    members: Labels
    seconds: dict[str, float]


def segment_case(
    case: CaseInput,
    network: DiffusionSegmenter,
    preprocessing: Compose,
    inferer: EnsembleInferer,
    scaling: Scaling | None = None,
) -> SegmentedCase:
    """Load, sample and bring back one case.

    Args:
        case: its name and files.
        network: in evaluation mode, on the device that shall do the work.
        preprocessing: MONAI chain from ``{"case", "image"}`` to the network's input.
        inferer: samples the ensemble.
        scaling: calibrates the mean probability, before the mask is taken from it.

    Raises:
        InputError: the case's files cannot be used.
    """
    started = time.perf_counter()
    item = load(preprocessing, {"case": case.id, "image": list(case.image)})
    image = item["image"]
    loaded = time.perf_counter()
    ensemble = inferer.ensemble(torch.as_tensor(image.as_tensor()), network, case.id)

    def on_grid(maps: torch.Tensor) -> Floats:
        parts = [restore(part, image, preprocessing) for part in _parts(maps)]
        return np.concatenate(parts)

    mean = _as_probabilities(on_grid(ensemble.mean))
    mean = mean if scaling is None else scaling(mean)
    by_steps = None if ensemble.by_steps is None else on_grid(ensemble.by_steps)
    anchor = _as_probabilities(on_grid(ensemble.anchor))
    parts = [
        np.rint(restore(part, image, preprocessing, mode="nearest")).astype(np.uint8)
        for part in _parts(ensemble.labels)
    ]
    members = np.concatenate(parts)
    return SegmentedCase(
        geometry=item["geometry"],
        image=on_grid(image.as_tensor().cpu()),
        mask=_fused(inferer.fusion, mean, members, by_steps),
        mean=mean,
        variance=on_grid(ensemble.variance).clip(0.0, 0.25),
        entropy=predictive_entropy(torch.from_numpy(mean)).numpy(),
        anchor=anchor.argmax(axis=0).astype(np.uint8),
        members=members,
        seconds={"load": loaded - started, **ensemble.seconds},
    )


def _parts(maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Some maps at a time: resampling needs many times the memory of what it resamples."""
    return maps.split(max(1, VALUES_AT_ONCE // maps[0].numel()))


def _fused(rule: Fusion, mean: Floats, members: Labels, by_steps: Floats | None) -> Labels:
    """(*shape) the ensemble's mask, from maps on the input's grid."""
    steps = None if by_steps is None else torch.from_numpy(_as_probabilities(by_steps))
    scores = fuse(rule, torch.from_numpy(mean), torch.from_numpy(members), steps)
    return scores.numpy().argmax(axis=0).astype(np.uint8)


def _as_probabilities(maps: Floats) -> Floats:
    """What a resampling left: clipped, and background where the chain had cropped the image."""
    maps = maps.clip(0.0, 1.0)
    maps[0] += (1.0 - maps.sum(axis=0)).clip(0.0, 1.0)
    return maps / maps.sum(axis=0)
