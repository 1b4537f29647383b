"""The record of a segmented case, ``<case>_run.json``: its content, and reading an earlier one."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.core.atomic_files import read_json
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.formats import format_of
from medsegdiff.data.manifest import class_slug
from medsegdiff.segmentation.segmented_case import SegmentedCase

WHOLE = 1.5
"""Extent relative to the greatest expected one from which a scan is a whole body part."""

SLIGHTLY = 1.05
"""Factor by which an extent may miss the expected ones without a word."""

PACKAGES = ("medsegdiff", "torch", "monai", "numpy")


def run_record(case: SegmentedCase, given: CaseInput, labels: Mapping[int, str]) -> dict[str, Any]:
    """The part of ``<case>_run.json`` about the case itself: inputs, versions, seconds, volumes.

    DICOM inputs appear only by their case id, since names of folders may be patients' names.
    """
    inputs = [Path(str(n)).name if format_of(n) else given.id for n in given.image]
    return {
        "case": given.id,
        "inputs": inputs,
        "shape": list(case.geometry.shape),
        "spacing_mm": list(case.geometry.spacing),
        "unit": case.geometry.unit,
        "versions": {name: version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "seconds": dict(case.seconds),
        "windows": dict(case.windows),
        "volume_ml": volumes_of(case, labels),
    }


def volumes_of(case: SegmentedCase, labels: Mapping[int, str]) -> dict[str, Any]:
    """Volumes in ml: of the ensemble mask and each member's, with their mean and 90 % interval.

    Args:
        case: Segmented case.
        labels: Value of a class -> its name; the background is left out.

    Returns:
        ``ensemble``, ``mean_of_members``, ``interval_90`` and ``members`` (in the order of the maps
        of members) of each class, by its name in files.
    """
    found: dict[str, Any] = {}
    voxels = _voxels(case) * case.geometry.voxel_ml
    for value, label in labels.items():
        if value:
            ensemble, members = voxels[0, value], voxels[1:, value]
            low, high = np.quantile(members, [0.05, 0.95])
            found[class_slug(label)] = {
                "ensemble": float(ensemble),
                "mean_of_members": float(members.mean()),
                "interval_90": [float(low), float(high)],
                "members": [float(volume) for volume in members],
            }
    return found


def volumes_of_places(
    record: Mapping[str, Any],
) -> dict[str, dict[str, tuple[float, list[float]]]]:
    """Named place of a record -> class -> its volume in ml and the 90 % interval; may be empty."""
    location = record.get("location") or {}
    intervals = location.get("volume_interval_90_ml", {})
    return {
        place: {slug: (volume, intervals[place][slug]) for slug, volume in volumes.items()}
        for place, volumes in location.get("volume_ml", {}).items()
        if place and place in intervals
    }


def _voxels(case: SegmentedCase) -> Any:
    """(1 + N, 256) counts of voxels per class number: the ensemble mask, then each member."""
    counts = np.zeros((1 + len(case.members), 256), dtype=np.int64)
    for place in case.slabs():
        for count, labels in zip(counts, (case.mask, *case.members), strict=True):
            count += np.bincount(labels[place].ravel(order="K"), minlength=256)
    return counts


def size_warnings(
    shape: Sequence[int], geometry: Geometry, expected_mm: Sequence[Sequence[float]]
) -> list[str]:
    """Warnings about an unusual extent of an image; empty if the extent is as expected.

    Extents and expectations are both sorted before they are compared, whatever their axes.
    """
    return [
        f"the image measures {extent:.0f} mm along one axis, this bundle was made for {low:.0f} to "
        f"{high:.0f} mm: crop it around the structure, or distrust the result"
        for extent, low, high in _beside_expected(shape, geometry, expected_mm)
        if not low / SLIGHTLY <= extent <= high * SLIGHTLY
    ]


def whole_scan(
    shape: Sequence[int],
    geometry: Geometry,
    expected_mm: Sequence[Sequence[float]],
    times: float = WHOLE,
) -> str:
    """Why an image is too large to be segmented at once; empty if it is not.

    It is where an axis is more than ``times`` times as long as the longest that is expected.
    """
    for extent, low, high in _beside_expected(shape, geometry, expected_mm):
        if extent > times * high:
            return (
                f"measures {extent:.0f} mm along one axis, but this bundle was made for parts of "
                f"{low:.0f} to {high:.0f} mm"
            )
    return ""


def _beside_expected(
    shape: Sequence[int], geometry: Geometry, expected_mm: Sequence[Sequence[float]]
) -> list[tuple[float, float, float]]:
    """Extent in mm, least and greatest expected one, of each axis; nothing of photographs.

    A plane that is stored as a volume of one slice has two axes here.
    """
    if geometry.unit != "mm":
        return []  # nobody knows how large it is
    extents = sorted(n * s for n, s in zip(shape, geometry.spacing, strict=False))
    expected = sorted(map(tuple, expected_mm))
    return [(e, low, high) for e, (low, high) in zip(extents, expected, strict=False)]


def read_record(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read the record of a complete case, which must have the same image and settings.

    Raises:
        InputError: the record is unreadable, or the image or a setting differs.
    """
    record = read_json(path)
    if not isinstance(record, dict) or not {"formats", "save_members"} <= set(record):
        rule = "cannot be read as the record of a complete case"
        raise InputError(path, rule, "Add --overwrite, or choose another output folder")
    changed = [name for name, value in settings.items() if record.get(name) != value]
    if changed:
        what = ", ".join("image" if name == "input_hash" else name for name in changed)
        rule = f"was made with another {what}"
        raise InputError(path, rule, "Add --overwrite, or choose another output folder")
    return record
