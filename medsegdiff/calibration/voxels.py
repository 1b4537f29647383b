"""The voxels of a segmented case that a calibration is fitted to and checked on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medsegdiff.calibration.conformal import THRESHOLDS
from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import Case, Manifest
from medsegdiff.data.predictions import (
    foreground,
    known_voxels,
    majority,
    read_prediction,
    read_reference,
)
from medsegdiff.metrics.calibration_error import region_of_interest

SAID = float(THRESHOLDS[0])
"""Foreground probability from which a voxel counts as pointed at by the ensemble."""

MARGIN = 0.25
"""Margin around what is marked or pointed at, as a share of the structure's equivalent diameter."""

MOST_INSIDE = 100_000
"""Voxels kept of a case's region; of a larger one, so many are drawn."""

MOST_OUTSIDE = 20_000
"""Voxels drawn of the rest of the image, which is nearly all alike."""

SEED = 0


@dataclass(frozen=True, eq=False)
class CaseVoxels:
    """Voxels of one case, each standing for ``weight`` voxels, so that all of the image counts.

    Attributes:
        case: Name of the case.
        patient: Name of its patient.
        probability: Mean probability (K, V), float32, uncalibrated, background first.
        share: Share (K, V), float32, of the raters that chose each class.
        reference: Class (V,), uint8, that most raters chose.
        weight: Number (V,) of voxels of the image that each stands for.
        region: Mask (V,) of the region where the ensemble or a rater sees a structure.
        class_roi: Masks (K, V) of the region of interest of the metric ``ece_roi``: of all
            classes first, then of each.
        run: Content of ``<case>_run.json``.
    """

    case: str
    patient: str
    probability: NDArray[np.float32]
    share: NDArray[np.float32]
    reference: NDArray[np.uint8]
    weight: NDArray[np.float64]
    region: NDArray[np.bool_]
    class_roi: NDArray[np.bool_]
    run: dict[str, Any] = field(default_factory=dict)

    @property
    def region_size(self) -> float:
        """Number of voxels of the region, or of all of the image where the region is empty."""
        return float(self.weight[self.region].sum()) or float(self.weight.sum())


def read_case_voxels(case: Case, folder: Path, manifest: Manifest) -> CaseVoxels:
    """Reads what a calibration needs of one case.

    Args:
        case: Case of the data set, with references.
        folder: Folder that its segmentation left.
        manifest: Description of the data set.

    Raises:
        InputError: files missing or broken, no mean maps, or maps that are calibrated already.
    """
    classes = foreground(manifest)
    annotations, geometry = read_reference(case, manifest)
    found = read_prediction(folder, case.id, classes, geometry)
    if not found.run:
        rule = "has no maps and no record: a mask alone cannot be calibrated"
        raise InputError(folder, rule, "Segment the case with medsegdiff")
    if found.run.get("calibrated"):
        rule = "was segmented with a calibration, which would be fitted on top of itself"
        raise InputError(folder, rule, "Segment it into another folder with --calibration off")
    maps = np.stack([found.mean[slug] for slug in classes.values()])
    probability = np.concatenate([(1.0 - maps.sum(axis=0, keepdims=True)).clip(0.0, 1.0), maps])
    marked = np.stack([annotations == value for value in classes])
    known = known_voxels(annotations)
    return sampled_voxels(
        case.id,
        case.patient,
        probability / probability.sum(axis=0),
        np.stack([(annotations == value).mean(axis=0) for value in (0, *classes)]),
        _numbered(majority(annotations, classes), classes),
        [region_of_interest(m.any(axis=0)) for m in (marked.any(axis=0), *marked)],
        geometry.spacing,
        found.run,
        known,
    )


def sampled_voxels(
    case: str,
    patient: str,
    probability: NDArray[Any],
    share: NDArray[Any],
    reference: NDArray[np.uint8],
    class_roi: list[NDArray[np.bool_]],
    spacing: tuple[float, ...],
    run: dict[str, Any] | None = None,
    known: NDArray[np.bool_] | None = None,
) -> CaseVoxels:
    """All voxels of the region of a case, and some of the rest, weighted to stand for all.

    Args:
        case: Name of the case.
        patient: Name of its patient.
        probability: Mean probability (K, *shape), summing to 1.
        share: Share (K, *shape) of the raters that chose each class.
        reference: Index (*shape) of the class that most raters chose, 0 to K - 1.
        class_roi: Masks (*shape), K of them: regions of interest of the metric ``ece_roi``.
        spacing: Size of a voxel in millimetres, one value an axis.
        run: Content of ``<case>_run.json``.
        known: Mask (*shape) of the voxels whose class is known, which alone count; None: all.
    """
    if known is not None:
        share, seen = (
            np.concatenate([np.where(known, maps[:1], 1.0), maps[1:] * known])
            for maps in (share, probability)
        )
    else:
        seen = probability
    near = near_structure(seen, share, spacing)
    inside = near | class_roi[0]
    kept, weight = _drawn(inside.ravel(), None if known is None else known.ravel())
    k = len(probability)
    return CaseVoxels(
        case=case,
        patient=patient,
        probability=probability.reshape(k, -1)[:, kept].astype(np.float32),
        share=share.reshape(k, -1)[:, kept].astype(np.float32),
        reference=reference.ravel()[kept],
        weight=weight,
        region=near.ravel()[kept],
        class_roi=np.stack([roi.ravel()[kept] for roi in class_roi]),
        run=run or {},
    )


def near_structure(
    probability: NDArray[Any], share: NDArray[Any], spacing: tuple[float, ...]
) -> NDArray[np.bool_]:
    """Where the ensemble or a rater sees a structure, and a margin around it.

    The margin is a share of the structure's own size, so that neither the size of voxels nor that
    of the image decides it: a quarter of the diameter of the ball (2D: disc) of its volume, one
    voxel at least.

    Args:
        probability: Mean probability (K, *shape).
        share: Share (K, *shape) of the raters that chose each class.
        spacing: Size of a voxel in millimetres, one value an axis.

    Returns:
        (*shape) mask; empty where nobody sees anything.
    """
    marked = share[0] < 1.0
    seen = marked | (probability[0] <= 1.0 - SAID)
    if not seen.any() or seen.all():
        return np.asarray(seen)
    axes = np.array(spacing)
    structure = marked if marked.any() else probability[0] < 0.5
    volume = max(int(structure.sum()), 1) * float(np.prod(axes))
    ball = {1: 1.0, 2: np.pi / 4, 3: np.pi / 6}[seen.ndim]
    margin = max(MARGIN * float((volume / ball) ** (1 / seen.ndim)), float(axes.max()))
    return np.asarray(ndimage.distance_transform_edt(~seen, sampling=axes) <= margin)


def _drawn(
    inside: NDArray[np.bool_], known: NDArray[np.bool_] | None
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Indices of the voxels that are kept, and how many each stands for."""
    rng = np.random.default_rng(SEED)
    outside = ~inside
    if known is not None:
        inside, outside = inside & known, outside & known
    kept, weights = [], []
    for part, most in ((inside, MOST_INSIDE), (outside, MOST_OUTSIDE)):
        at = np.flatnonzero(part)
        n = min(len(at), most)
        chosen = np.sort(rng.choice(at, n, replace=False)) if n < len(at) else at
        kept.append(chosen)
        weights.append(np.full(n, len(at) / max(n, 1)))
    return np.concatenate(kept), np.concatenate(weights)


def _numbered(hard: NDArray[np.uint8], classes: dict[int, str]) -> NDArray[np.uint8]:
    """Label values -> indices of classes, background 0."""
    found = np.zeros_like(hard)
    for index, value in enumerate(classes, start=1):
        found[hard == value] = index
    return found
