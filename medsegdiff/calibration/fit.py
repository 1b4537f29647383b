"""Fit a calibration to segmented cases with references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.calibration import conformal
from medsegdiff.calibration.fitted import Calibration
from medsegdiff.calibration.scaling import Scaling, fit_scaling
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import ScalingMethod
from medsegdiff.data.manifest import Case, Manifest
from medsegdiff.data.predictions import foreground, majority, read_prediction, read_reference
from medsegdiff.metrics.calibration_error import region_of_interest

KEPT = 1e-9
"""Least foreground probability of a voxel that is kept outside of the region of interest; less
stays below the lowest threshold at a temperature up to 3.9."""

MOST_VOXELS = 200_000
"""Largest number of voxels that the scaling is fitted to; of more, so many are drawn."""

SEED = 0


@dataclass(frozen=True, eq=False)
class CaseVoxels:
    """The voxels of one case that a calibration uses.

    Attributes:
        case: Name of the case.
        patient: Name of the patient.
        probability: Mean probability (K, V) float32, uncalibrated.
        reference: Class number (V,) of the reference, the raters' majority.
        region: Mask (V,) of the region of interest, the dilated union of the raters' masks.
        share: Share (K, R) of the raters that chose each class, in the R voxels of the region.
        class_region: Region of interest (K, V) of each class by itself, as for ``ece_roi``; that of
            all classes together is first.
        run: Content of ``<case>_run.json``.
    """

    case: str
    patient: str
    probability: NDArray[np.float32]
    reference: NDArray[np.uint8]
    region: NDArray[np.bool_]
    share: NDArray[np.float32]
    class_region: NDArray[np.bool_]
    run: dict[str, Any]


def read_case_voxels(case: Case, folder: Path, manifest: Manifest) -> CaseVoxels:
    """The voxels of one case, read from its prediction and reference.

    Args:
        case: Case of the data set.
        folder: Folder of its prediction.
        manifest: Description of the data set.

    Raises:
        InputError: files are missing or broken, there are no mean maps, or they are calibrated.
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
    marked = [annotations == value for value in classes]
    regions = [region_of_interest(m.any(axis=0)) for m in marked]
    region = region_of_interest(np.any(marked, axis=(0, 1)))
    kept = region | (maps.sum(axis=0) >= KEPT)
    shares = [(annotations == value)[:, region].mean(axis=0) for value in (0, *classes)]
    return CaseVoxels(
        case=case.id,
        patient=case.patient,
        probability=(probability / probability.sum(axis=0))[:, kept].astype(np.float32),
        reference=majority(annotations, classes)[kept],
        region=region[kept],
        share=np.stack(shares).astype(np.float32),
        class_region=np.stack([region, *regions])[:, kept],
        run=found.run,
    )


def fit_calibration(
    cases: Sequence[CaseVoxels],
    slugs: Sequence[str],
    method: ScalingMethod = "vector",
    start: Scaling | None = None,
) -> Calibration:
    """Scaling, risks and volume scores of some cases.

    The scaling is fitted on the same cases as the thresholds. Strictly the cases should be others.
    But the scaling has 2 K - 1 numbers only, and ``coverage.split_coverage``, which repeats the
    whole fit on a part of the cases, measures the effect.

    Args:
        cases: Cases to fit to, at least one.
        slugs: Names of the foreground classes, in the order of their numbers.
        method: Method of the scaling.
        start: Scaling at which its fit begins.

    Raises:
        InputError: no rater has marked anything in any case.
    """
    scaling = fit_scaling(*drawn_voxels(cases), method, start)
    missed: dict[str, list[Any]] = {slug: [] for slug in slugs}
    wrong: dict[str, list[Any]] = {slug: [] for slug in slugs}
    scores: dict[str, list[float]] = {slug: [] for slug in slugs}
    for case in cases:
        scaled = scaling(case.probability)
        for value, slug in enumerate(slugs, start=1):
            reference = case.reference == value
            curves = conformal.risk_curves(scaled[value], reference)
            missed[slug].append(curves[0])
            wrong[slug].append(curves[1])
            expected = conformal.expected_volume(scaled[value])
            scores[slug].append(conformal.volume_score(float(reference.sum()), *expected))
    return Calibration(
        method,
        scaling,
        len(cases),
        {slug: tuple(np.mean(curves, axis=0).tolist()) for slug, curves in missed.items()},
        {slug: tuple(np.mean(curves, axis=0).tolist()) for slug, curves in wrong.items()},
        {slug: tuple(sorted(of_class)) for slug, of_class in scores.items()},
    )


def drawn_voxels(
    cases: Sequence[CaseVoxels],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Voxels of the regions of interest that a scaling is fitted to, at most ``MOST_VOXELS``.

    Returns:
        Probabilities (K, V), shares of raters (K, V), and weights (V,) by which all cases count the
        same whatever their size, as in ``ece_roi``.

    Raises:
        InputError: no rater has marked anything in any case.
    """
    total = sum(case.share.shape[1] for case in cases)
    rng, drawn = np.random.default_rng(SEED), []
    for case in cases:
        inside, n = case.probability[:, case.region], case.share.shape[1]
        some = rng.permutation(n)[: round(n * min(1.0, MOST_VOXELS / max(total, 1)))]
        drawn.append((inside[:, some], case.share[:, some], np.full(len(some), 1.0 / max(n, 1))))
    if not sum(p.shape[1] for p, *_ in drawn):
        rule = "no rater has marked anything in any case"
        raise InputError("calibration", rule, "Use cases with references that are not empty")
    probabilities, shares, weights = zip(*drawn, strict=True)
    return np.concatenate(probabilities, 1), np.concatenate(shares, 1), np.concatenate(weights)
