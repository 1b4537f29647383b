"""Fingerprint of a data set: all that a plan depends on, read from its files once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medsegdiff.core.types import UNKNOWN_CLASS, Geometry
from medsegdiff.data.formats import is_photograph
from medsegdiff.data.manifest import Case, Manifest
from medsegdiff.data.transforms import read_case_labels, read_channels

SIDES = re.compile(r"\b(left|right|l|r|lt|rt|lh|rh|sin|dex)\b", re.IGNORECASE)
"""Words in the names of labels that tell one side of the body from the other."""

ARRANGED = 1.0
"""Mean distance of two classes along an axis, relative to its scatter, that makes an order."""


@dataclass(frozen=True)
class Fingerprint:
    """Facts that a plan depends on. Axes of volumes are those of RAS space, of pictures their own.

    Attributes:
        name: Name of the data set.
        dims: Number of spatial axes of the files, 2 or 3.
        labels: Name of each class by its number, background included.
        channels: Name of each channel.
        raters: Greatest number of raters of a case.
        cases: Number of labelled cases.
        patients: Number of their patients.
        photographs: Whether the images are photographs, whose spacing is not known.
        stacks: Whether the files hold stacks of planes, each of which is an image of its own.
        shape: Median size along each axis, in voxels.
        largest: Greatest size along each axis, in voxels.
        spacing: Median spacing along each axis, in mm; 1 for photographs.
        finest: 10th percentile of the spacing along each axis, in mm.
        extent: 95th percentile of the size of the box around all structures, in voxels of the
            median spacing.
        thickness: Median over cases of the mean thickness of the structures, in voxels.
        share: Median share of the image that is foreground.
        present: Number of cases that have a class, by class number.
        folds: Number of folds in whose held-out cases a class occurs, by class number.
        ordered: Whether classes lie in the same order along an axis in nearly all cases, by axis.
        sides: Whether labels tell one side of the body from the other.
        intensity: Mean, standard deviation, 0.5th and 99.5th percentile of the voxels within the
            structures, by channel.
        darkest: Median over the images of the 0.5th percentile of all voxels of the first channel.
    """

    name: str
    dims: int
    labels: dict[int, str]
    channels: tuple[str, ...]
    raters: int
    cases: int
    patients: int
    photographs: bool
    stacks: bool
    shape: tuple[int, ...]
    largest: tuple[int, ...]
    spacing: tuple[float, ...]
    finest: tuple[float, ...]
    extent: tuple[float, ...]
    thickness: float
    share: float
    present: dict[int, int]
    folds: dict[int, int]
    ordered: tuple[bool, ...]
    sides: bool
    intensity: tuple[tuple[float, float, float, float], ...]
    darkest: float

    @property
    def anisotropy(self) -> float:
        """Greatest over least spacing."""
        return max(self.spacing) / min(self.spacing)

    def to_json(self) -> dict[str, Any]:
        """The fingerprint as dictionaries and lists."""
        return asdict(self)


@dataclass(frozen=True)
class _CaseFacts:
    """Facts of a case; ``centres`` are those of each class, the mean of what its raters marked."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    extent: tuple[float, ...]
    thickness: float
    share: float
    centres: dict[int, NDArray[np.float64]]
    intensity: tuple[tuple[float, float, float, float], ...]
    darkest: float


def fingerprint_of(
    manifest: Manifest, progress: Callable[[Sequence[Case]], Iterable[Case]] = iter
) -> Fingerprint:
    """The fingerprint of a data set; every labelled case is read once.

    Args:
        manifest: Data set, with labelled cases.
        progress: Wrapper of the cases that shows progress.

    Raises:
        InputError: a case cannot be read.
    """
    cases = [case for case in manifest.cases if case.labels]
    photographs = all(is_photograph(case.images[0]) for case in cases)
    facts = [_facts(case, manifest) for case in progress(cases)]
    dims = max(len(one.shape) for one in facts)
    stacks = manifest.spatial_dims == 2 and dims == 3
    values = [value for value in manifest.labels if value]
    present = {v: sum(v in one.centres for one in facts) for v in values}
    held_out = [
        {
            v
            for case, one in zip(cases, facts, strict=True)
            if case.patient in fold
            for v in one.centres
        }
        for fold in map(set, manifest.folds)
    ]
    shapes = np.array([_padded(one.shape, dims) for one in facts])
    spacings = np.array([_padded(one.spacing, dims) for one in facts], dtype=float)
    extents = np.array([_padded(one.extent, dims) for one in facts], dtype=float)
    spacing = np.median(spacings, axis=0)
    return Fingerprint(
        name=manifest.name,
        dims=dims,
        labels=dict(manifest.labels),
        channels=manifest.channels,
        raters=manifest.raters,
        cases=len(cases),
        patients=len({case.patient for case in cases}),
        photographs=photographs,
        stacks=stacks,
        shape=tuple(int(n) for n in np.median(shapes, axis=0)),
        largest=tuple(int(n) for n in shapes.max(axis=0)),
        spacing=tuple(float(s) for s in spacing),
        finest=tuple(float(s) for s in np.percentile(spacings, 10, axis=0)),
        extent=tuple(float(e) for e in np.percentile(extents * spacings, 95, axis=0) / spacing),
        thickness=float(np.median([one.thickness for one in facts if one.thickness] or [0.0])),
        share=float(np.median([one.share for one in facts])),
        present=present,
        folds={v: sum(v in fold for fold in held_out) for v in values},
        ordered=_ordered([one.centres for one in facts], values, dims),
        sides=any(tells_side(manifest.labels[v]) for v in values),
        intensity=tuple(
            (float(m), float(s), float(low), float(high))
            for m, s, low, high in np.median([one.intensity for one in facts], axis=0)
        ),
        darkest=float(np.median([one.darkest for one in facts])),
    )


def _facts(case: Case, manifest: Manifest) -> _CaseFacts:
    image, geometry = read_channels(case.images, manifest.spatial_dims, len(manifest.channels))
    labels = read_case_labels(case, geometry, manifest)
    shape = geometry.shape
    marked = np.where(labels == UNKNOWN_CLASS, 0, labels).reshape(len(labels), *shape)
    channels = image.reshape(len(image), *shape)
    order = _ras_order(geometry) if manifest.spatial_dims == 3 else tuple(range(len(shape)))
    any_class = np.asarray((marked > 0).any(axis=0)).transpose(order)
    spacing = tuple(geometry.spacing[axis] for axis in order)
    inside = any_class if any_class.any() else np.ones_like(any_class)
    there = [int(value) for value in np.unique(marked) if value]
    turned = marked.transpose(0, *(1 + axis for axis in order))
    found = ndimage.center_of_mass(turned > 0, turned, there) if there else []
    centres = {
        value: np.array(centre[1:]) * _signs(geometry, order)
        for value, centre in zip(there, found, strict=True)
    }
    ordered = channels.transpose(0, *(1 + axis for axis in order))
    return _CaseFacts(
        shape=tuple(any_class.shape),
        spacing=spacing,
        extent=_extent(any_class),
        thickness=_thickness(any_class),
        share=float(any_class.mean()),
        centres=centres,
        intensity=tuple(_intensity(channel[inside]) for channel in ordered),
        darkest=float(np.percentile(ordered[0], 0.5)),
    )


def _ras_order(geometry: Geometry) -> tuple[int, ...]:
    """Axes of the file in the order of R, A and S."""
    if len(geometry.shape) != 3:
        return tuple(range(len(geometry.shape)))
    directions = nib.io_orientation(geometry.affine)[:, 0]
    return tuple(int(axis) for axis in np.argsort(directions))


def _signs(geometry: Geometry, order: Sequence[int]) -> NDArray[np.float64]:
    """1 or -1 for each axis, by which way it runs in RAS space."""
    if len(geometry.shape) != 3:
        return np.ones(len(order))
    return np.asarray(nib.io_orientation(geometry.affine)[list(order), 1])


def _extent(mask: NDArray[np.bool_]) -> tuple[float, ...]:
    if not mask.any():
        return (0.0,) * mask.ndim
    return tuple(float(np.ptp(at) + 1) for at in np.nonzero(mask))


def _thickness(mask: NDArray[np.bool_]) -> float:
    """Mean thickness in voxels: about four times the mean distance of inner voxels to the rim."""
    if not mask.any():
        return 0.0
    planes = [mask] if mask.ndim == 2 else [mask[..., z] for z in np.flatnonzero(mask.any((0, 1)))]
    inner = [ndimage.distance_transform_edt(plane)[plane] for plane in planes if plane.any()]
    return float(4.0 * np.concatenate(inner).mean())


def _intensity(values: NDArray[Any]) -> tuple[float, float, float, float]:
    low, high = np.percentile(values, (0.5, 99.5))
    return float(values.mean()), float(values.std()), float(low), float(high)


def tells_side(name: str) -> bool:
    """Whether a label's name tells a side of the body: ``LeftKidney``, ``kidney_l``, ``left1``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|_", " ", name)
    return bool(SIDES.search(words))


def _ordered(
    centres: Sequence[dict[int, NDArray[np.float64]]], values: Sequence[int], dims: int
) -> tuple[bool, ...]:
    """Whether two classes lie in one order along an axis, in nearly all cases that have both."""
    found = np.zeros(dims, dtype=bool)
    for first, a in enumerate(values):
        for b in values[first + 1 :]:
            apart = np.array([c[b] - c[a] for c in centres if a in c and b in c])
            if len(apart) >= 3:
                found |= np.abs(apart.mean(axis=0)) > ARRANGED * (apart.std(axis=0) + 1.0)
    return tuple(bool(one) for one in found)


def _padded(values: Sequence[Any], dims: int) -> list[Any]:
    return [*values, *[1] * (dims - len(values))]
