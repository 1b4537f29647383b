"""From files to tensors in the network's space, and back to the input's own grid.

This file holds only the first and the last step. The steps between them (orientation, spacing,
normalisation, padding) are MONAI's dictionary transforms, written in a bundle's configuration::

    chain = Compose([LoadCased(), Orientationd("image", "RAS"), Spacingd("image", (1, 1, 1))])
    item = load(chain, {"case": "a", "image": ["a.nii.gz"]})
    maps = network(item["image"][None])[0]
    on_input_grid = restore(maps, item["image"], chain)
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Transform, allow_missing_keys_mode
from monai.transforms.utils import convert_applied_interp_mode
from numpy.typing import NDArray
from torch import Tensor

from medsegdiff.core.errors import InputError, surfacing_input_errors
from medsegdiff.core.types import UNKNOWN_CLASS, Geometry
from medsegdiff.data.formats import is_photograph
from medsegdiff.data.images import Source, grid_distance, plane_affine, read_image
from medsegdiff.data.label_values import LabelValues, UnknownValuesError, renumber, suggested
from medsegdiff.data.manifest import Case, Manifest
from medsegdiff.data.pixel_spacing import with_spacing
from medsegdiff.data.references import Structures, is_reference, read_structures

GRID_TOLERANCE = 0.1
"""Greatest allowed distance between image and label, or between channels, in voxels."""
LARGEST_VALUE = 1e14
"""Greatest allowed magnitude of an intensity: the sum of 10^10 such squares fits in float32."""


class LoadCased(Transform):
    """Load the files of a case (an item of :func:`medsegdiff.data.manifest.datalist`).

    Sets ``image``: float32 MetaTensor (C, *spatial) with its affine, voxel index -> RAS+ mm;
    ``geometry``: the input's :class:`~medsegdiff.core.types.Geometry` (not collatable: leave it
    out of batches); and, if the item has a label, ``label``: uint8 MetaTensor (M, *spatial) of
    class numbers, one channel per rater, on the image's grid. The keys ``label_values``, which
    gives the meaning of the label's values, and ``spacing``, the size of a photograph's pixels in
    mm, are removed. Other keys are unchanged.

    The spatial axes are those of the file. With ``spatial_dims=2`` a plane (X, Y) or (X, Y, 1)
    becomes (C, X, Y), and a volume stays a volume, to be cut into slices later. The affine of a
    plane covers its own two axes, with signs and order as they run in RAS space.

    Args:
        spatial_dims: Number of spatial axes, 2 or 3.
        channels: Number of input channels: files of the case, or the last axis of a single file.
        labels: Allowed label values (a mapping value -> name is possible, too); None allows 0 to
            255.
        raters: Number of raters that a label file may hold in an additional last axis.
        references: Mapping of the structures of a DICOM SEG or RTSTRUCT to classes; None takes the
            names of ``labels``, if it has names.
        manifest: Data set whose labels, raters and references replace these three arguments.
        image_key: Key of the image's paths, and afterwards of the image.
        label_key: Key of the label's paths, and afterwards of the label.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        channels: int = 1,
        labels: Collection[int | str] | None = None,
        raters: int = 1,
        references: Structures | None = None,
        manifest: Manifest | None = None,
        image_key: str = "image",
        label_key: str = "label",
    ) -> None:
        if manifest is not None:
            labels, raters = list(manifest.labels), manifest.raters
            references = manifest.references
        self.spatial_dims, self.channels, self.raters = spatial_dims, channels, raters
        if references is None and isinstance(labels, Mapping):
            references = Structures.of_labels(labels)
        self.references = references
        self.labels = None if labels is None else frozenset(int(value) for value in labels)
        self.image_key, self.label_key = image_key, label_key

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Load one case.

        Raises:
            InputError: a file is missing, unreadable or empty, has values that are not finite or
                too large, or does not match the others in number, shape, affine or values.
        """
        item = dict(data)
        sources = _listed(item[self.image_key])
        image, of_file = read_channels(sources, self.spatial_dims, self.channels)
        geometry = with_spacing(of_file, item.pop("spacing", ()))
        item[self.image_key] = _tensor(image, geometry, self.spatial_dims, sources[0])
        item["geometry"] = geometry
        if item.get(self.label_key):
            files, values = _listed(item[self.label_key]), item.pop("label_values", ())
            label = read_labels(files, of_file, self.labels, self.raters, values, self.references)
            item[self.label_key] = _tensor(label, geometry, self.spatial_dims, files[0])
        return item


class UnknownLabeld(Transform):
    """Adds a label of unknown class in all voxels to an image without a label.

    The image can then be in a batch with labelled images, which are unchanged.

    Args:
        image_key: Key of a MetaTensor (C, *spatial) from ``LoadCased``.
        label_key: Key of the label (1, *spatial), uint8, on the image's grid.
    """

    def __init__(self, image_key: str = "image", label_key: str = "label") -> None:
        self.image_key, self.label_key = image_key, label_key

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Complete one case."""
        item = dict(data)
        if self.label_key not in item:
            image = item[self.image_key]
            unknown = torch.full((1, *image.shape[1:]), UNKNOWN_CLASS, dtype=torch.uint8)
            item[self.label_key] = MetaTensor(unknown, meta=deepcopy(image.meta))
        return item


class LeaveOutUnknownd(Transform):
    """Makes voxels of unknown class background in mask and label, so that overlap ignores them.

    Args:
        pred_key: Key of a one-hot mask (K, *spatial), background first.
        label_key: Key of the label (M, *spatial) of class numbers.
    """

    def __init__(self, pred_key: str = "pred", label_key: str = "label") -> None:
        self.pred_key, self.label_key = pred_key, label_key

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Complete one case."""
        item = dict(data)
        unknown = item[self.label_key] == UNKNOWN_CLASS
        if unknown.any():
            item[self.label_key] = item[self.label_key].masked_fill(unknown, 0)
            mask = item[self.pred_key].masked_fill(unknown.any(dim=0, keepdim=True), 0)
            mask[0] += unknown.any(dim=0)
            item[self.pred_key] = mask
        return item


def load(chain: Callable[[Any], Any], item: Mapping[str, Any]) -> dict[str, Any]:
    """Run a chain over one item; an ``InputError`` inside MONAI's own error is raised as such.

    Raises:
        InputError: a transform of the chain raised it.
    """
    with surfacing_input_errors():
        result: dict[str, Any] = chain(item)
    return result


def restore(
    maps: Tensor,
    image: MetaTensor,
    chain: Compose,
    *,
    mode: Literal["bilinear", "nearest"] = "bilinear",
    key: str = "image",
) -> NDArray[np.float32]:
    """Undo the chain's spatial transforms, which brings maps back to the input's own grid.

    Args:
        maps: Maps (C, *spatial) in the space of ``image``, with any number of channels.
        image: Image (C', *spatial) as returned by the chain.
        chain: Chain that made ``image``.
        mode: Interpolation for resampled voxels: ``bilinear`` for probabilities, ``nearest`` for
            class numbers.
        key: Key of the image in the chain.

    Returns:
        (C, *shape), float32, with exactly the shape of the input's geometry; zero where the
        chain cropped the image.

    Raises:
        ValueError: maps and image differ in shape, or the chain cannot be inverted.
    """
    if maps.shape[1:] != image.shape[1:]:
        raise ValueError(f"maps {tuple(maps.shape)} are not on the grid of {tuple(image.shape)}")
    operations = convert_applied_interp_mode(deepcopy(image.applied_operations), mode=mode)
    placed = MetaTensor(
        torch.as_tensor(maps.detach(), dtype=torch.float32).cpu(),
        meta=deepcopy(image.meta),
        applied_operations=operations,
    )
    inverted = placed
    if operations:  # without operations, MONAI's inverse only warns
        with allow_missing_keys_mode(chain), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "axcodes")  # MONAI expects three axes in any affine
            inverted = chain.inverse({key: placed})[key]
    shape = tuple(int(size) for size in image.meta["spatial_shape"])
    if math.prod(inverted.shape[1:]) != math.prod(shape):
        found = tuple(inverted.shape[1:])
        raise ValueError(f"inverting the chain gives shape {found}, not {shape} of the input")
    return np.asarray(inverted.as_tensor(), dtype=np.float32).reshape(len(maps), *shape)


def read_channels(
    sources: Sequence[Source], spatial_dims: int, channels: int
) -> tuple[NDArray[np.float32], Geometry]:
    """Read an image (C, *shape) with one file per channel, or all channels in one file.

    A grey photograph is repeated in all three colour channels.

    Raises:
        InputError: see :class:`LoadCased`.
    """
    loaded = [_read_channel(source, spatial_dims, channels) for source in sources]
    array, geometry = loaded[0]
    for source, (other, place) in zip(sources[1:], loaded[1:], strict=True):
        if place.shape != geometry.shape or other.shape[1:] != array.shape[1:]:
            rule = f"has shape {place.shape}, but the first channel has {geometry.shape}"
            raise InputError(source, rule, "Resample the channels to one grid")
        check_grid(source, geometry, place, "the first channel", "Register the channels")
    image = np.concatenate([values for values, _ in loaded]) if len(loaded) > 1 else array
    notes = tuple(dict.fromkeys(note for _, place in loaded for note in place.notes))
    geometry = replace(geometry, notes=notes)
    if len(image) == 1 and channels == 3 and is_photograph(sources[0]):
        image = np.repeat(image, 3, axis=0)  # a grey photograph among colour photographs
    if len(image) != channels:
        subject = ", ".join(str(source) for source in sources)
        rule = f"has {len(image)} channels, but {channels} are needed"
        where = (
            "in the last axis of one file, in a folder a case whose files have their names, as "
            "one file per channel in a dataset.json, or as series of a DICOM study (segment "
            "--channels)"
        )
        raise InputError(subject, rule, f"Give the model's channels, in its order, {where}")
    return image, geometry


def read_case_labels(case: Case, image: Geometry, manifest: Manifest) -> NDArray[np.uint8]:
    """Class numbers (M, *shape) of all raters of a described case; see :func:`read_labels`."""
    of_set = manifest.labels, manifest.raters
    return read_labels(case.labels, image, *of_set, case.label_values, manifest.references)


def read_labels(
    sources: Sequence[Source],
    image: Geometry,
    allowed: Collection[int] | None,
    raters: int = 1,
    label_values: LabelValues = (),
    references: Structures | None = None,
) -> NDArray[np.uint8]:
    """Class numbers (M, *shape) of all raters, on the image's grid.

    Raises:
        InputError: see :class:`LoadCased`.
    """
    annotations = [
        _read_reference(source, image, references)
        if is_reference(source)
        else _read_label(source, image, allowed, raters, label_values)
        for source in sources
    ]
    return np.concatenate(annotations) if len(annotations) > 1 else annotations[0]


def check_grid(
    source: Source, reference: Geometry, other: Geometry, name: str, remedy: str
) -> None:
    """Refuse a file whose voxels do not lie on the grid of its reference.

    Args:
        source: File to check.
        reference: Grid that the file must lie on.
        other: Grid of the file.
        name: Name of the reference, such as "its image".
        remedy: Advice to the user.

    Raises:
        InputError: the grids lie more than ``GRID_TOLERANCE`` apart.
    """
    apart = grid_distance(reference, other)
    if apart > GRID_TOLERANCE:
        rule = f"lies up to {apart:.3g} voxels from {name} (their affines differ)"
        raise InputError(source, rule, remedy)


def _read_channel(
    source: Source, spatial_dims: int, channels: int
) -> tuple[NDArray[np.float32], Geometry]:
    """Read (channels in this file, *shape)."""
    values, geometry = read_image(source)
    if spatial_dims == 3 and len(geometry.shape) == 2:
        rule = f"is a plane {geometry.shape}, but a volume is needed"
        remedy = "Give a volume, or use a two-dimensional bundle; a data set of planes says so:"
        raise InputError(source, rule, f'{remedy} "tensorImageSize": "2D"')
    if values.ndim == len(geometry.shape):
        values = values[None]
    elif channels > 1 or len(geometry.shape) == 2:
        values = np.moveaxis(values, -1, 0)
    else:
        rule = f"has {values.ndim} axes {values.shape}, but {len(geometry.shape)} are expected"
        remedy = f"The last axis (size {values.shape[-1]}) may be time: give one volume of it"
        raise InputError(source, rule, remedy)
    with np.errstate(over="ignore"):
        image = np.ascontiguousarray(values, dtype=np.float32)
    if not -LARGEST_VALUE <= image.min() <= image.max() <= LARGEST_VALUE:  # also true with a NaN
        bad = image.size - np.count_nonzero(np.abs(image) <= LARGEST_VALUE)
        rule = f"{bad} of {image.size} values are NaN, infinite or beyond {LARGEST_VALUE:g}"
        raise InputError(source, rule, "Replace them, for instance by the background's value")
    return image, geometry


def _read_reference(
    source: Source, image: Geometry, references: Structures | None
) -> NDArray[np.uint8]:
    """Class numbers (1, *shape) of a DICOM SEG or RTSTRUCT, whose structures have names."""
    if references is None:
        rule = "is a DICOM SEG or RTSTRUCT, but its structures are not assigned to classes"
        raise InputError(source, rule, 'Give LoadCased references: "$@manifest.references"')
    return read_structures(str(source), image, references)[None]


def _read_label(
    source: Source,
    image: Geometry,
    allowed: Collection[int] | None,
    raters: int,
    label_values: LabelValues,
) -> NDArray[np.uint8]:
    values, geometry = _read_numbers(source, label_values)
    values = _without_colour(values, image, raters)
    grid = _three_axes(image.shape)
    if _three_axes(values.shape) == grid:
        values = values.reshape(1, *image.shape)
    elif raters > 1 and values.shape[-1] == raters and _three_axes(values.shape[:-1]) == grid:
        values = np.moveaxis(values, -1, 0).reshape(raters, *image.shape)
    else:
        rule = f"label has shape {values.shape}, but its image has {image.shape}"
        hint = "" if raters > 1 else ", or set 'raters' if the last axis holds several annotations"
        raise InputError(source, rule, f"Resample the label to the image{hint}")
    check_grid(source, image, geometry, "its image", "Copy the image's header to the label")
    if allowed is not None and any(number == UNKNOWN_CLASS for *_, number in label_values):
        allowed = {*allowed, UNKNOWN_CLASS}
    _check_values(values, allowed, source)
    return values.astype(np.uint8)


def _read_numbers(source: Source, label_values: LabelValues) -> tuple[NDArray[Any], Geometry]:
    """Class numbers as stored in the file, or translated by ``label_values``.

    For a palette image, ``label_values`` may refer to the greys of the palette, since a GIF can
    only hold 0 and 255 as colours with arbitrary indices. Otherwise the indices are the values.
    """
    if label_values and is_photograph(source):
        shown, geometry = read_image(source)
        if shown.ndim == 2:
            with suppress(InputError):
                return renumber(shown, label_values, source), geometry
    values, geometry = read_image(source, label=True)
    return renumber(values, label_values, source), geometry


def _without_colour(values: NDArray[Any], image: Geometry, raters: int) -> NDArray[Any]:
    """One of the three equal colour channels of a mask that was saved as a colour photograph."""
    coloured = raters != 3 and values.shape == (*image.shape, 3) and len(image.shape) == 2
    if coloured and (values == values[..., :1]).all():
        return values[..., 0]
    return values


def _check_values(values: NDArray[Any], allowed: Collection[int] | None, source: Source) -> None:
    found = np.unique(values.ravel(order="K"))  # in memory order: avoids a copy
    whole = np.isfinite(found) & (found == np.rint(found))
    if not whole.all():
        rule = f"label values must be whole numbers, not {found[~whole][:3].tolist()}"
        raise InputError(source, rule, "Resample labels with nearest neighbours")
    known = range(256) if allowed is None else sorted(allowed)
    unknown = [int(value) for value in found if value not in known]
    if unknown:
        more = " ..." if len(unknown) > 5 else ""
        rule = f"unknown label values {unknown[:5]}{more}, known are {list(known)[:10]}"
        held = tuple(int(value) for value in found)
        raise UnknownValuesError(source, rule, suggested(held, known), held)


def _three_axes(shape: Sequence[int]) -> tuple[int, ...]:
    return (*shape, 1, 1)[: max(3, len(shape))]


def _tensor(
    array: NDArray[Any], geometry: Geometry, spatial_dims: int, source: Source
) -> MetaTensor:
    affine = geometry.affine
    if spatial_dims == 2 and geometry.shape[2:] in ((), (1,)):
        array = array.reshape(array.shape[:3])
        affine = plane_affine(geometry)
    meta = {
        "filename_or_obj": str(getattr(source, "uid", source)),
        "original_affine": torch.as_tensor(affine),
        "original_channel_dim": 0,
        "spatial_shape": geometry.shape,
        "space": "RAS",
    }
    return MetaTensor(torch.from_numpy(array), affine=torch.as_tensor(affine), meta=meta)


def _listed(value: Any) -> list[Source]:
    return list(value) if isinstance(value, list | tuple) else [value]
