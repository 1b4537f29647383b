"""Calibrations, bundles and cases small enough that all of them is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.bundle.bundle import CALIBRATION, WEIGHTS, Bundle
from medsegdiff.calibration.conformal import THRESHOLDS
from medsegdiff.calibration.fitted import Calibration
from medsegdiff.calibration.scaling import Scaling
from medsegdiff.calibration.voxels import CaseVoxels

LABELS = {0: "background", 1: "Head of it", 2: "Tail"}
SLUGS = ("head-of-it", "tail")


def small_calibration(n: int = 100, **changed: Any) -> Calibration:
    """A calibration of two classes whose masks are good at each threshold."""
    curve = tuple((0.001 * THRESHOLDS).tolist())
    found = Calibration(
        "vector",
        Scaling((1.5, 0.9, 1.0), (0.0, 0.3, -0.2)),
        n,
        dict.fromkeys(SLUGS, curve),
        dict.fromkeys(SLUGS, curve[::-1]),
        dict.fromkeys(SLUGS, tuple(np.linspace(0.0, 1.0, n).tolist())),
        {"data": "some", "cases": n, "patients": n - 1, "inputs": ["0123456789abcdef"]},
        largest_shift=0.1,
    )
    return replace(found, **changed)


def small_bundle(
    root: Path, calibration: Calibration | None = None, version: str = "1.2"
) -> Bundle:
    """A bundle of labels and weights alone, with a calibration that was fitted to them."""
    pred = {"channel_def": {str(value): name for value, name in LABELS.items()}}
    metadata = {"version": version, "network_data_format": {"outputs": {"pred": pred}}}
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "configs" / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    (root / "configs" / "inference.yaml").write_text("members: 3\n", encoding="utf-8")
    (root / WEIGHTS).write_bytes(b"weights")
    bundle = Bundle(root)
    if calibration is not None:
        on = {**calibration.fitted_on, "weights_hash": bundle.weights_hash()}
        content = replace(calibration, fitted_on=on).to_json()
        (root / CALIBRATION).write_text(json.dumps(content), encoding="utf-8")
    return bundle


def small_case(
    probability: Sequence[Sequence[float]],
    reference: Sequence[int],
    *,
    name: str = "case",
    patient: str | None = None,
    weight: Sequence[float] | None = None,
    region: Sequence[bool] | None = None,
    run: dict[str, Any] | None = None,
) -> CaseVoxels:
    """A case of a few voxels.

    Args:
        probability: Probability of each foreground class, a row a class.
        reference: Class of each voxel.
        name: Name of the case.
        patient: Name of the patient; None: that of the case.
        weight: Number of voxels that each stands for; 1 if None.
        region: Whether each voxel is in the region; all if None.
        run: Record of the case.
    """
    p = np.asarray(probability, np.float32)
    classes, voxels = len(p) + 1, p.shape[1]
    within = np.ones(voxels, bool) if region is None else np.asarray(region, bool)
    return CaseVoxels(
        case=name,
        patient=name if patient is None else patient,
        probability=np.concatenate([1.0 - p.sum(axis=0, keepdims=True), p]),
        share=np.eye(classes, dtype=np.float32)[:, list(reference)],
        reference=np.asarray(reference, np.uint8),
        weight=np.ones(voxels) if weight is None else np.asarray(weight, float),
        region=within,
        class_roi=np.stack([within] * classes),
        run=run or {},
    )
