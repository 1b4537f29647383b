"""One data set and fold as every contender sees it: the bundle's transforms, batches, items.

Where a bundle of three dimensions meets a data set of planes, or volumes that are cut into planes,
its augmentation is used with a value less per axis.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose
from torch import Tensor

from medsegdiff.bundle import Bundle
from medsegdiff.data import Case, Manifest, cut_into_planes, datalist, load_manifest

Item = dict[str, Any]
"""``case``, ``image`` (C, *spatial) float32 and ``label`` (M, *spatial) uint8 class numbers."""


@dataclass(frozen=True)
class Study:
    """A fold of a data set in memory.

    Attributes:
        name: Name of the data set, with how it was cut.
        dims: Number of spatial axes of an item.
        num_classes: Number K of classes, background included.
        channels: Number of channels of the image.
        raters: Number M of annotations of an item.
        fold: Number of the fold that is held out.
        training: Items of the other folds, before augmentation.
        held_out: Items of the fold, in a fixed random order.
        augmentation: Random transforms of the bundle.
        batch_size: Number of items a step.
        changes: Changes of the bundle's configurations, so that its network fits this data.
    """

    name: str
    dims: int
    num_classes: int
    channels: int
    raters: int
    fold: int
    training: list[Item]
    held_out: list[Item]
    augmentation: Compose
    batch_size: int
    changes: dict[str, Any]

    def batches(self, seed: int) -> Iterator[dict[str, Tensor]]:
        """Augmented batches without end, the same for the same seed."""
        self.augmentation.set_random_state(seed)
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(
            Dataset(self.training, self.augmentation),
            batch_size=min(self.batch_size, len(self.training)),
            shuffle=True,
            drop_last=True,
            num_workers=0,
            generator=generator,
        )
        while True:
            for batch in loader:
                yield {name: batch[name] for name in ("image", "label")}


def load_study(
    data: str, bundle: Bundle, fold: int, *, planes: bool = False, changes: dict[str, Any]
) -> Study:
    """Read a fold of a data set into memory.

    Args:
        data: Path of a ``dataset.json``, its folder, or a name in ``data_manifests/``.
        bundle: Bundle whose ``configs/train`` says how files become tensors.
        fold: Number of the fold to hold out.
        planes: Whether to cut volumes into planes along their last axis, also those that no rater
            marked.
        changes: Further values of ``configs/train``.

    Raises:
        InputError: the data cannot be read.
    """
    manifest = load_manifest(data)
    flat = planes or manifest.spatial_dims == 2
    network = _network_changes(manifest, 2 if flat else 3)
    settings = {"dataset_dir": data, "fold": fold, **network, **changes}
    raw = bundle.parser("train").config
    if flat and raw["network_def"]["encoder"]["spatial_dims"] == 3:
        settings = _planar_changes(raw, manifest) | settings
    parser = bundle.parser("train", settings)
    chain = Compose(parser.get_parsed_content("deterministic_transforms"))
    training, held_out = (_items(cases, chain, flat) for cases in manifest.split(fold))
    random.Random(0).shuffle(held_out)
    return Study(
        name=manifest.name + (" planes" if planes else ""),
        dims=2 if flat else 3,
        num_classes=len(manifest.labels),
        channels=len(manifest.channels),
        raters=manifest.raters,
        fold=fold,
        training=training,
        held_out=held_out,
        augmentation=Compose(parser.get_parsed_content("random_transforms")),
        batch_size=int(parser.get_parsed_content("batch_size")),
        changes=network | changes,
    )


def _items(cases: Sequence[Case], chain: Compose, flat: bool) -> list[Item]:
    if flat:
        return cut_into_planes(cases, chain)
    loaded = [chain(item) for item in datalist(cases)]
    return [
        {"case": case.id}
        | {key: torch.as_tensor(x[key]).as_subclass(torch.Tensor) for key in ("image", "label")}
        for case, x in zip(cases, loaded, strict=True)
    ]


def _network_changes(manifest: Manifest, dims: int) -> dict[str, Any]:
    """What a bundle's ``train`` and ``inference`` need to know of this data."""
    return {
        "num_classes": len(manifest.labels),
        "network_def#encoder#spatial_dims": dims,
        "network_def#encoder#in_channels": len(manifest.channels),
        "network_def#denoiser#spatial_dims": dims,
    }


def _planar_changes(raw: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    """Transforms of planes; the spacing of LIDC's is unknown, so none are resampled."""
    load = {
        "_target_": "medsegdiff.data.LoadCased",
        "spatial_dims": 2,
        "channels": len(manifest.channels),
        "labels": list(manifest.labels),
        "raters": manifest.raters,
    }
    return {
        "deterministic_transforms": [
            load,
            {"_target_": "NormalizeIntensityd", "keys": "image"},
            {"_target_": "SelectItemsd", "keys": ["image", "label"]},
        ],
        "random_transforms": [_planar(transform) for transform in raw["random_transforms"]],
        "patch_size": [64, 64],
        "batch_size": 16,
    }


def _planar(transform: dict[str, Any]) -> dict[str, Any]:
    """A transform of three axes as one of two: the first two values of each list per axis."""
    kept = {name: value for name, value in transform.items() if name != "sigma_z"}
    return {
        name: value[:2] if isinstance(value, list) and len(value) == 3 else value
        for name, value in kept.items()
    }
