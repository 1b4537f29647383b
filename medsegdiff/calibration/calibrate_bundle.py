"""From segmented cases with references to a bundle's calibration: ``medsegdiff calibrate``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np

from medsegdiff.bundle.bundle import CALIBRATION, Bundle, load_bundle
from medsegdiff.calibration.application import input_id
from medsegdiff.calibration.coverage import LEVELS, SHARE, SPLITS, cross_fitted, split_coverage
from medsegdiff.calibration.fit import CaseVoxels, fit_calibration, read_case_voxels
from medsegdiff.calibration.fitted import Calibration
from medsegdiff.core.atomic_files import write_json
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.core.sampling_settings import BINDING
from medsegdiff.core.types import ScalingMethod
from medsegdiff.data.manifest import Manifest, class_slug, load_manifest
from medsegdiff.data.predictions import foreground, matching

logger = logging.getLogger(__name__)

T = TypeVar("T")
Progress = Callable[[Sequence[T]], Iterable[T]]
"""Gives the items one by one and shows, if it likes, how many are done."""


def calibrate(
    bundle: str | Path | Bundle,
    data: str | Path,
    predictions: str | Path,
    output: str | Path | None = None,
    *,
    method: ScalingMethod = "vector",
    splits: int = SPLITS,
    progress: Callable[[str], Progress[Any]] = lambda _: iter,
) -> Calibration:
    """Fit a calibration to all cases that have a prediction and a reference, and write it.

    Args:
        bundle: name, path or bundle, that the predictions were made with, uncalibrated.
        data: description of the data set, or a known name.
        predictions: folder with one folder a case, as segmenting leaves it. The cases must not be
            those that the network was trained on.
        output: file to write; ``models/calibration.json`` of the bundle if None, from where it is
            applied at once.
        method: ``vector`` or ``temperature``.
        splits: random splits to check it with; 0: none.
        progress: from a description, a wrapper of a sequence.

    Raises:
        InputError: no prediction has a reference, or one cannot be used: broken, calibrated
            already, of another bundle or other settings.
        UsageError: an unknown method, or fewer than 0 splits.
    """
    if method not in get_args(ScalingMethod):
        raise UsageError("method", f"must be vector or temperature, not {method!r}", "Choose one")
    if splits < 0:
        raise UsageError("splits", f"must be 0 or more, not {splits}", "Give for instance 200")
    bundle, predictions, manifest = load_bundle(bundle), Path(predictions), load_manifest(data)
    slugs = list(foreground(manifest).values())
    if slugs != [class_slug(name) for value, name in bundle.labels.items() if value]:
        rule = f"has the classes {', '.join(slugs)}, not those of the bundle"
        raise InputError(manifest.name, rule, "Name the labels of the data set as the bundle does")
    found, _ = matching(manifest, predictions)
    cases = [
        read_case_voxels(case, predictions / case.id, manifest)
        for case in progress("reading")(found)
    ]
    check_runs(cases, bundle, predictions)
    fitted = fit_calibration(cases, slugs, method)
    fitted = replace(
        fitted,
        fitted_on=described(cases, manifest, bundle),
        checked=checked(cases, slugs, fitted, splits, progress("checking")),
    )
    write_json(Path(output or bundle.root / CALIBRATION), fitted.to_json())
    for level in LEVELS:
        for limit in fitted.limits(level):
            logger.warning("%s", limit)
    return fitted


def check_runs(cases: Sequence[CaseVoxels], bundle: Bundle, predictions: Path) -> None:
    """Refuse cases of another bundle, or of settings that are not those of the first case.

    Raises:
        InputError: naming the case.
    """
    first, remedy = cases[0].run, "Segment all cases alike, with --calibration off"
    for case in cases:
        if case.run.get("bundle_hash") != bundle.fingerprint():
            rule = f"was not made with the weights and the inference.yaml of {bundle.name}"
            raise InputError(predictions / case.case, rule, remedy)
        different = [name for name in BINDING if case.run.get(name) != first.get(name)]
        if different:
            rule = f"differs from {cases[0].case} in {', '.join(different)}"
            raise InputError(predictions / case.case, rule, remedy)


def described(cases: Sequence[CaseVoxels], manifest: Manifest, bundle: Bundle) -> dict[str, Any]:
    """What a calibration was fitted on; images by the beginning of their hash, without a name."""
    return {
        "data": manifest.name,
        "cases": len(cases),
        "patients": len({case.patient for case in cases}),
        "bundle": bundle.name,
        "bundle_version": str(bundle.metadata.get("version", "")),
        "weights_hash": bundle.weights_hash(),
        "settings": {name: cases[0].run.get(name) for name in BINDING},
        "inputs": sorted(input_id(str(case.run.get("input_hash"))) for case in cases),
    }


def checked(
    cases: Sequence[CaseVoxels],
    slugs: Sequence[str],
    fitted: Calibration,
    splits: int,
    progress: Progress[int],
) -> dict[str, Any]:
    """Figures on cases that were left out of a fit; empty with a single patient."""
    if len({case.patient for case in cases}) < 2:
        return {}
    crossed = cross_fitted(cases, slugs, fitted.method, fitted.scaling)
    result: dict[str, Any] = {"cross_fitted": crossed}
    if splits:
        coverage = split_coverage(
            cases, slugs, fitted.method, splits=splits, start=fitted.scaling, progress=progress
        )
        result |= {"splits": splits, "share_fitted": SHARE, "levels": coverage}
    rounded: dict[str, Any] = _rounded(result)
    return rounded


def _rounded(value: Any) -> Any:
    """Five digits, and None for NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 5)
    return value


def summary_lines(fitted: Calibration) -> list[str]:
    """What ``medsegdiff calibrate`` prints: in words, what was fitted and what is reached."""
    on = fitted.fitted_on
    lines = [f"fitted on {on['cases']} cases of {on['patients']} patients of {on['data']}"]
    crossed = fitted.checked.get("cross_fitted", {})
    for figure in ("ece_roi", "ece_roi_pooled", "nll_roi", "dice") if crossed else ():
        before, after = (
            ", ".join(f"{slug} {value:.4f}" for slug, value in crossed[when][figure].items())
            for when in ("before", "after")
        )
        lines.append(f"{figure} on patients left out: {before}; calibrated: {after}")
    for level, figures in fitted.checked.get("levels", {}).items():
        for slug in fitted.missed:
            told = ", ".join(f"{name} {by[slug]:.3f}" for name, by in figures.items() if by[slug])
            lines.append(f"level {level} on patients left out, {slug}: {told}")
    return lines
