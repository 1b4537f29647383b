"""The images that predictions are of: those of a data set, or of a folder; and their grids."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.images import grid_distance
from medsegdiff.data.layouts.channel_files import joined_channels
from medsegdiff.data.layouts.name_pairs import named_files
from medsegdiff.data.manifest import Manifest
from medsegdiff.data.transforms import GRID_TOLERANCE
from medsegdiff.other_models.predicted import Maps


def images_of_folder(folder: Path) -> dict[str, CaseInput]:
    """Images in a folder by the name of their case; files ``x_0000``, ``x_0001`` are one case.

    Args:
        folder: Folder of the images.

    Raises:
        InputError: the folder does not exist, or has no image.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "Give the folder of the images")
    files = {name: [path] for name, path in named_files(folder).items()}
    found = joined_channels(files)
    if not found:
        raise InputError(folder, "has no image file", "Give the folder of the images")
    return {name: CaseInput(name, tuple(paths)) for name, paths in found.items()}


def images_of_data(manifest: Manifest) -> dict[str, CaseInput]:
    """Images of a data set by the name of their case, those of its test included."""
    cases = (*manifest.test_images, *manifest.cases)
    return {case.id: CaseInput(case.id, case.images, spacing=case.spacing) for case in cases}


def without_images(names: Iterable[str], files: Iterable[tuple[Path, ...]]) -> dict[str, CaseInput]:
    """Cases whose predictions stand for the image, which nobody gave."""
    return {n: CaseInput(n, own) for n, own in zip(names, files, strict=True)}


def on_grid_of(maps: Maps, own: Geometry, image: Geometry, source: Path, *, resample: bool) -> Maps:
    """Maps on the grid of their image.

    Args:
        maps: Probabilities (K, *shape), background first.
        own: Geometry of the maps.
        image: Geometry of the image.
        source: File of the maps, for messages.
        resample: Whether maps on another grid are interpolated linearly, with background where
            they end; otherwise they are refused.

    Returns:
        Maps (K, *shape) on the image's grid, summing to 1.

    Raises:
        InputError: the grids differ, and ``resample`` is not set.
    """
    same_shape = own.shape == image.shape
    apart = grid_distance(image, own) if len(own.shape) == len(image.shape) == 3 else 0.0
    if same_shape and apart <= GRID_TOLERANCE:
        return maps
    if not resample or len(own.shape) != 3:
        rule = f"has shape {own.shape}, but its image has {image.shape}"
        if same_shape:
            rule = f"lies up to {apart:.3g} voxels from its image (their affines differ)"
        remedy = "Give the images that it was predicted from, or resample it to them"
        raise InputError(source, rule, remedy)
    placed = MetaTensor(torch.from_numpy(maps), affine=torch.as_tensor(own.affine))
    resampler = SpatialResample(mode="bilinear", padding_mode="zeros")
    found = resampler(
        placed, dst_affine=torch.as_tensor(image.affine), spatial_size=image.shape
    ).as_tensor()
    found[0] += (1.0 - found.sum(dim=0)).clamp(0.0, 1.0)
    return (found / found.sum(dim=0)).numpy().astype("float32")
