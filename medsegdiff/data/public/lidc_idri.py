"""LIDC-IDRI: CT of the chest, and XML files with the nodules as up to four raters drew them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.atomic_files import written_aside
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import Series, find_series, read_series
from medsegdiff.data.public.contours import fill

RATERS = 4
CROP = 64
"""Least number of columns and rows of a crop, in pixels."""
MARGIN = 8
"""Least distance of a nodule to the edge of its crop, in pixels."""


@dataclass(frozen=True)
class Outline:
    """One closed line of one rater in one slice.

    Attributes:
        z: Position of the slice, in mm.
        points: Column and row of each pixel of the line, just outside the nodule.
        included: Whether the inside belongs to the nodule; False for a hole.
    """

    z: float
    points: list[tuple[float, float]]
    included: bool


@dataclass(frozen=True)
class Annotation:
    """Annotation of one nodule of 3 mm or more by one rater."""

    rater: int
    outlines: tuple[Outline, ...]


def convert(
    root: Path, output: Path, progress: Callable[[Sequence[Path]], Iterable[Path]]
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Write a crop around each nodule, in HU, with the four annotations in the label's last axis.

    Args:
        root: Folder of the set as downloaded.
        output: Folder for the converted files.
        progress: Wrapper of the sequence of patients' folders.

    Returns:
        Entries of a ``dataset.json``, and the reason of each failure, by patient or XML file.
    """
    entries: list[dict[str, str]] = []
    by_series, failures = _all_annotations(root)
    for folder in progress(sorted(f for f in root.glob("LIDC-IDRI-[0-9]*") if f.is_dir())):
        try:
            scans = [s for s in find_series(folder, folder.name) if s.uid in by_series]
            count = 0
            for series in scans:
                for image, label in nodules(series, by_series[series.uid]):
                    count += 1
                    entries.append(_write(f"{folder.name}_{count:02d}", image, label, output))
            if not scans:
                failures[folder.name] = "no CT series of it has an XML file of annotations"
        except InputError as error:
            failures[folder.name] = f"{error.rule}. {error.remedy}"
    return entries, failures


def read_xml(file: Path) -> tuple[str, list[Annotation]]:
    """The series' identifier, and all annotations of nodules of 3 mm or more.

    Smaller nodules are marked by a single point, and are left out. An XML file of a plain
    radiograph has no such session, and gives an empty identifier.

    Raises:
        InputError: the file is damaged.
    """
    annotations = []
    try:
        tree = ElementTree.parse(file).getroot()
        uid = (tree.findtext("{*}ResponseHeader/{*}SeriesInstanceUid") or "").strip()
        for rater, session in enumerate(tree.iterfind("{*}readingSession")):
            for nodule in session.iterfind("{*}unblindedReadNodule"):
                outlines = tuple(_outline(roi) for roi in nodule.iterfind("{*}roi"))
                if any(len(outline.points) > 1 for outline in outlines):
                    annotations.append(Annotation(rater, outlines))
    except (ElementTree.ParseError, ValueError, TypeError) as error:
        rule = f"its annotations cannot be read ({error})"
        raise InputError(file, rule, "Download the annotations again") from None
    return uid, annotations


def nodules(
    series: Series, annotations: Iterable[Annotation]
) -> list[tuple[nib.Nifti1Image, nib.Nifti1Image]]:
    """Image (X, Y, slices) in HU and label (X, Y, slices, 4) of each nodule of a scan.

    Annotations are of one nodule if they share a voxel of the outline or within, directly or by
    way of a third. If a rater has two such annotations, both are drawn. A rater without one has an
    empty map.

    Args:
        series: CT series of the scan.
        annotations: Annotations of the scan by all raters.

    Raises:
        InputError: the series cannot be read, or an outline lies in no slice of it.
    """
    values, geometry = read_series(series)
    drawn = [(one.rater, *_draw(one, geometry, series)) for one in annotations]
    groups = _overlapping([full for _, _, full in drawn])
    return [_crop(values, geometry, [drawn[member] for member in group]) for group in groups]


def _all_annotations(root: Path) -> tuple[dict[str, list[Annotation]], dict[str, str]]:
    by_series: dict[str, list[Annotation]] = {}
    failures: dict[str, str] = {}
    for file in sorted(root.rglob("*.xml")):
        try:
            uid, annotations = read_xml(file)
        except InputError as error:
            failures[file.name] = f"{error.rule}. {error.remedy}"
            continue
        if uid:
            by_series[uid] = annotations
    return by_series, failures


def _outline(roi: ElementTree.Element) -> Outline:
    return Outline(
        z=float(roi.findtext("{*}imageZposition") or "nan"),
        points=[
            (float(e.findtext("{*}xCoord") or "nan"), float(e.findtext("{*}yCoord") or "nan"))
            for e in roi.iterfind("{*}edgeMap")
        ],
        included=(roi.findtext("{*}inclusion") or "TRUE").strip().upper() == "TRUE",
    )


def _draw(
    annotation: Annotation, geometry: Geometry, series: Series
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Flat indices of the voxels within the outlines, and of these with the outlines."""
    columns, rows, slices = geometry.shape
    heights = geometry.affine[2, 2] * np.arange(slices) + geometry.affine[2, 3]
    inside: dict[int, NDArray[np.bool_]] = {}
    full: dict[int, NDArray[np.bool_]] = {}
    for outline in sorted(annotation.outlines, key=lambda one: not one.included):  # holes come last
        k = int(np.argmin(np.abs(heights - outline.z)))
        if not abs(heights[k] - outline.z) <= abs(geometry.affine[2, 2]) / 2:
            rule = f"an outline at z = {outline.z:g} mm lies in none of its slices"
            raise InputError(series, rule, "Is the series complete?")
        for planes, whole in ((inside, False), (full, True)):
            plane = fill(outline.points, (columns, rows), with_outline=whole)
            before = planes.get(k, np.zeros_like(plane))
            planes[k] = before | plane if outline.included else before & ~plane
    return _flat(inside, geometry.shape), _flat(full, geometry.shape)


def _flat(planes: dict[int, NDArray[np.bool_]], shape: tuple[int, ...]) -> NDArray[np.intp]:
    found = [(*np.nonzero(plane), np.full(int(plane.sum()), k)) for k, plane in planes.items()]
    axes = [np.concatenate(axis).astype(np.intp) for axis in zip(*found, strict=True)]
    return np.sort(np.ravel_multi_index(axes, shape)) if axes else np.empty(0, dtype=np.intp)


def _overlapping(parts: Sequence[NDArray[np.intp]]) -> list[list[int]]:
    """Groups of parts that overlap, by number, in the order of their first part."""
    groups: list[tuple[list[int], set[int]]] = []
    for number, part in enumerate(parts):
        voxels = set(part.tolist())
        joined = [group for group in groups if not group[1].isdisjoint(voxels)]
        members = sorted([number, *(m for group in joined for m in group[0])])
        groups = [group for group in groups if group not in joined]
        groups.append((members, voxels.union(*(group[1] for group in joined))))
    return sorted(members for members, _ in groups)


def _crop(
    values: NDArray[np.float32],
    geometry: Geometry,
    group: Sequence[tuple[int, NDArray[np.intp], NDArray[np.intp]]],
) -> tuple[nib.Nifti1Image, nib.Nifti1Image]:
    """Image and label of one nodule, from its annotations (rater, voxels within, with outline)."""
    touched = np.unravel_index(np.concatenate([full for _, _, full in group]), geometry.shape)
    x, y, z = [(int(axis.min()), int(axis.max()) + 1) for axis in touched]
    where = (_window(*x, geometry.shape[0]), _window(*y, geometry.shape[1]), slice(*z))
    start = np.array([part.start for part in where])
    image = np.rint(values[where]).clip(-32768, 32767).astype(np.int16)
    label = np.zeros((*image.shape, RATERS), dtype=np.uint8)
    for rater, inside, _ in group:
        at = np.array(np.unravel_index(inside, geometry.shape)) - start[:, None]
        label[(*at, min(rater, RATERS - 1))] = 1
    affine = geometry.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    volumes = nib.Nifti1Image(image, affine), nib.Nifti1Image(label, affine)
    for volume in volumes:
        volume.header.set_xyzt_units("mm")
    return volumes


def _window(first: int, end: int, size: int) -> slice:
    """The range of ``CROP`` pixels or more around a nodule, within the image.

    >>> _window(100, 110, 512), _window(0, 10, 512), _window(100, 200, 512), _window(3, 9, 32)
    (slice(73, 137, None), slice(0, 64, None), slice(92, 208, None), slice(0, 32, None))
    """
    length = min(size, max(CROP, end - first + 2 * MARGIN))
    start = min(max(0, (first + end - length) // 2), size - length)
    return slice(start, start + length)


def _write(
    name: str, image: nib.Nifti1Image, label: nib.Nifti1Image, output: Path
) -> dict[str, str]:
    paths = {key: f"{key}sTr/{name}.nii.gz" for key in ("image", "label")}
    for key, volume in (("image", image), ("label", label)):
        with written_aside(output / paths[key]) as aside:
            nib.save(volume, aside)
    return paths | {"patient": name.rpartition("_")[0]}
