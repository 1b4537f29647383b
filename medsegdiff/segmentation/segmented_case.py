"""Segment one case: from its files to the ensemble's maps on its own grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from numpy.typing import NDArray
from torch import nn

from medsegdiff.calibration.fit import shift_sums
from medsegdiff.calibration.scaling import Scaling
from medsegdiff.core.storage import Storage, slabs, slowest_axis
from medsegdiff.core.types import Features, Fusion, Geometry
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.transforms import load, restore
from medsegdiff.segmentation.case_features import case_features
from medsegdiff.segmentation.ensemble import Ensemble, predictive_entropy
from medsegdiff.segmentation.fusion import fit_staple, fuse

VALUES_AT_ONCE = 2**22
"""Number of voxels that are brought back to the input's grid together."""

Floats = NDArray[np.float32]
Labels = NDArray[np.uint8]


class CaseInferer(Protocol):
    """Interface that makes the ensemble of an image: ``EnsembleInferer``, ``FewLabelInferer``."""

    fusion: Fusion

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that the masks of a network depend on, for the record of a case."""
        ...

    def check(self, network: Any) -> None:
        """Refuse a network that does not fit the settings.

        Raises:
            UsageError: the network does not fit.
        """
        ...

    def ensemble(
        self,
        image: torch.Tensor,
        network: Any,
        case: str,
        storage: Storage | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Ensemble:
        """Statistics of the ensemble of one image (C, *spatial).

        Raises:
            InputError: the disk has no room for the statistics of a large image.
        """
        ...


@dataclass(frozen=True)
class SegmentedCase:
    """All maps of one case, on the grid of its input. Large ones lie on disk.

    Attributes:
        geometry: Geometry of the input.
        image: Intensities (C, *shape) as the network saw them.
        mask: Label map (*shape) of the ensemble, fused from its members by the inferer's rule.
        mean: Mean probability (K, *shape) in [0, 1], summing to 1; calibrated if a scaling was
            given.
        variance: Variance (K, *shape) in [0, 0.25], over all members that were drawn.
        entropy: Entropy (*shape) of the mean probability, in nats.
        anchor: Label map (*shape) of the deterministic pass; None where there is none.
        members: Label map (N, *shape) of each member.
        seconds: Time spent in ``load``, ``encode`` and ``sample``, in seconds.
        windows: Number of windows that were ``run``, and that were ``skipped`` as empty.
        storage: Storage that holds the maps.
        calibration_shift: Shift of the foreground by the scaling, see ``calibration.fit.shift``;
            0 without one.
        places: Name of a place -> part of the grid that was segmented there; empty: all of it.
        features: Features of each place, or of all of it, see ``case_features``; may be empty.
    """

    geometry: Geometry
    image: Floats
    mask: Labels
    mean: Floats
    variance: Floats
    entropy: Floats
    anchor: Labels | None
    members: Labels
    seconds: dict[str, float]
    windows: dict[str, int] = field(default_factory=dict)
    storage: Storage = field(default_factory=Storage)
    calibration_shift: float = 0.0
    places: dict[str, tuple[slice, ...]] = field(default_factory=dict)
    features: tuple[Features, ...] = ()

    def slabs(self) -> Iterator[tuple[slice, ...]]:
        """Slabs that cover the grid once, so that work needs memory for one at a time.

        The memory of arrays on disk is freed after each slab.
        """
        for place in slabs(self.mask.shape, slowest_axis(self.mean)):
            yield place
            self.storage.release()


def segment_case(
    case: CaseInput,
    network: nn.Module,
    preprocessing: Compose,
    inferer: CaseInferer,
    scaling: Scaling | None = None,
    storage: Storage | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SegmentedCase:
    """All maps of one case, which is loaded, sampled and brought back to the grid of its input.

    Args:
        case: Name and files of the case.
        network: Network in evaluation mode, on the device to use.
        preprocessing: MONAI chain from ``{"case", "image"}`` to the network's input.
        inferer: Inferer that makes the ensemble.
        scaling: Calibration of the mean probability, applied before the mask is taken from it.
        storage: Maker of the arrays; None: they are in memory.
        progress: Callback after each window, called with the number done and the total.

    Raises:
        InputError: the case's files cannot be used, or the disk has no room for its maps.
    """
    started = time.perf_counter()
    item = load(preprocessing, case_item(case))
    seconds = time.perf_counter() - started
    return segment_item(
        item, case.id, network, preprocessing, inferer, scaling, storage, progress, seconds
    )


def case_item(case: CaseInput) -> dict[str, Any]:
    """The item that a chain of transforms begins with."""
    given = {"case": case.id, "image": list(case.image)}
    return given | ({"spacing": case.spacing} if case.spacing else {})


def segment_item(
    item: Mapping[str, Any],
    name: str,
    network: nn.Module,
    chain: Compose,
    inferer: CaseInferer,
    scaling: Scaling | None = None,
    storage: Storage | None = None,
    progress: Callable[[int, int], None] | None = None,
    seconds: float = 0.0,
) -> SegmentedCase:
    """All maps of an image that a chain has made, brought back to the grid it had before.

    Args:
        item: Result of the chain: ``image``, a MetaTensor (C, *spatial), and ``geometry``.
        name: Name that, with the seed, fixes the noise.
        network: Network in evaluation mode, on the device to use.
        chain: Chain that made the image.
        inferer: Inferer that makes the ensemble.
        scaling: Calibration of the mean probability, applied before the mask is taken from it.
        storage: Maker of the arrays; None: they are in memory.
        progress: Callback after each window, called with the number done and the total.
        seconds: Time spent to load it.

    Raises:
        InputError: the disk has no room for its maps.
    """
    storage = storage or Storage()
    image = item["image"]
    plain = torch.as_tensor(image.as_tensor())
    ensemble = inferer.ensemble(plain, network, name, storage, progress)
    grid = _InputGrid(image, chain, storage)
    maps = {
        name: grid.maps(values)
        for name in ("mean", "variance", "anchor", "by_steps")
        if (values := getattr(ensemble, name)) is not None
    }
    members = grid.labels(ensemble.labels)
    segmented = SegmentedCase(
        geometry=item["geometry"],
        image=grid.maps(plain.cpu()),
        mean=maps["mean"],
        variance=maps["variance"],
        members=members,
        mask=grid.empty("uint8", members),
        anchor=grid.empty("uint8", members) if "anchor" in maps else None,
        entropy=grid.empty("float32", members),
        seconds={"load": seconds, **ensemble.seconds},
        windows=ensemble.windows,
        storage=storage,
        features=(case_features(plain.cpu(), ensemble),),
    )
    shift = _complete(segmented, maps, inferer.fusion, scaling)
    return replace(segmented, calibration_shift=shift)


class _InputGrid:
    """Brings maps back to the input's own grid.

    Large maps are brought back one by one, so that memory is needed for one. If the chain has
    nothing to undo, nothing is copied.
    """

    def __init__(self, image: MetaTensor, chain: Compose, storage: Storage) -> None:
        self.image, self.chain, self.storage = image, chain, storage
        self.shape = tuple(int(n) for n in image.meta["spatial_shape"])

    def maps(self, maps: torch.Tensor) -> Floats:
        """Maps (C, *spatial) float32 -> maps (C, *shape), interpolated linearly."""
        return self._restored(maps, "float32", "bilinear")

    def labels(self, labels: torch.Tensor) -> Labels:
        """Label maps (N, *spatial) uint8 -> label maps (N, *shape), of the nearest voxel."""
        return self._restored(labels, "uint8", "nearest")

    def empty(self, dtype: str, like: NDArray[Any]) -> NDArray[Any]:
        """Zeros (*shape), in the memory layout of ``like`` (C, *shape)."""
        return self.storage.zeros((1, *self.shape), dtype, slowest_axis(like))[0]

    def _restored(
        self, maps: torch.Tensor, dtype: str, mode: Literal["bilinear", "nearest"]
    ) -> NDArray[Any]:
        if not self.image.applied_operations:
            return maps.numpy().reshape(len(maps), *self.shape)
        found = self.storage.zeros((len(maps), *self.shape), dtype, slowest=-1)
        done = 0
        for part in _parts(maps):
            restored = restore(part, self.image, self.chain, mode=mode)
            found[done : done + len(part)] = np.rint(restored) if dtype == "uint8" else restored
            done += len(part)
            self.storage.release()
        return found


def _parts(maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The maps in parts, since resampling needs many times the memory of a map."""
    return maps.split(max(1, VALUES_AT_ONCE // maps[0].numel()))


def _complete(
    case: SegmentedCase, maps: Mapping[str, Floats], rule: Fusion, scaling: Scaling | None
) -> float:
    """Repair what resampling left, and fill in what follows from it, slab by slab.

    Returns:
        How far the scaling moved the foreground, relative to what was there.
    """
    moved, there = 0.0, 1.0
    members = (torch.from_numpy(case.members[(slice(None), *place)]) for place in case.slabs())
    truth = fit_staple(members, len(case.mean)) if rule == "staple" else None
    for place in case.slabs():
        everywhere = (slice(None), *place)
        mean = _as_probabilities(maps["mean"][everywhere])
        if scaling is not None:
            raw, mean = mean, scaling(mean)
            moved, there = np.add((moved, there), shift_sums(raw, mean))
        case.mean[everywhere] = mean
        case.variance[everywhere] = maps["variance"][everywhere].clip(0.0, 0.25)
        case.entropy[place] = predictive_entropy(torch.from_numpy(mean)).numpy()
        if case.anchor is not None:
            case.anchor[place] = _as_probabilities(maps["anchor"][everywhere]).argmax(axis=0)
        labels, steps = torch.from_numpy(case.members[everywhere]), None
        if "by_steps" in maps:
            steps = torch.from_numpy(_as_probabilities(maps["by_steps"][everywhere]))
        fused = truth(labels) if truth else fuse(rule, torch.from_numpy(mean), labels, steps)
        case.mask[place] = fused.numpy().argmax(axis=0)
    return float(moved / there)


def _as_probabilities(maps: Floats) -> Floats:
    """Resampled maps, clipped and normalised; background where the chain had cropped the image."""
    maps = maps.clip(0.0, 1.0)
    maps[0] += (1.0 - maps.sum(axis=0)).clip(0.0, 1.0)
    return maps / maps.sum(axis=0)
