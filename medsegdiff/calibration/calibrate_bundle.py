"""Fit a calibration to segmented cases with references: ``medsegdiff calibrate``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np

from medsegdiff.bundle.bundle import CALIBRATION, Bundle, load_bundle
from medsegdiff.calibration.application import input_id
from medsegdiff.calibration.coverage import LEVELS, SHARE, SPLITS, split_coverage
from medsegdiff.calibration.fit import fit_calibration
from medsegdiff.calibration.fitted import Calibration
from medsegdiff.calibration.predicting_model import (
    PredictingModel,
    model_of_bundle,
    model_of_records,
)
from medsegdiff.calibration.scaling import Scaling
from medsegdiff.calibration.selection import Choice, choose_method
from medsegdiff.calibration.voxels import CaseVoxels, read_case_voxels
from medsegdiff.core.atomic_files import write_json
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.core.sampling_settings import BINDING
from medsegdiff.core.types import ScalingChoice
from medsegdiff.data.manifest import Manifest, load_manifest
from medsegdiff.data.predictions import foreground, matching
from medsegdiff.triage.triage import KnownCase, Triage, fit_triage

logger = logging.getLogger(__name__)

T = TypeVar("T")
Progress = Callable[[Sequence[T]], Iterable[T]]
"""Function that yields the items one by one, and may show how many are done."""


def calibrate(
    bundle: str | Path | Bundle | None,
    data: str | Path,
    predictions: str | Path,
    output: str | Path | None = None,
    *,
    method: ScalingChoice = "auto",
    splits: int = SPLITS,
    singles: Sequence[Bundle] = (),
    progress: Callable[[str], Progress[Any]] = lambda _: iter,
) -> Calibration:
    """Fit a calibration to all cases that have a prediction and a reference, and write it.

    Args:
        bundle: Name, path or bundle that made the predictions, without calibration; None: another
            program's model made them, and ``medsegdiff adopt`` brought them here.
        data: Path of the data set's description, or a known name.
        predictions: Folder with one folder for each case, as segmenting leaves it. The cases must
            not be those that the network was trained on.
        output: Path of the file to write; None: ``models/calibration.json`` of the bundle, from
            where it is applied from then on. It is needed without a bundle.
        method: ``auto``: the scaling that helps patients left out, or none; or ``none``,
            ``temperature``, ``vector``, which is used unless it hurts them.
        splits: Number of random splits that check the calibration; 0: none.
        singles: Bundles of single networks, each of which made the predictions of the cases that it
            was not trained on; ``bundle`` is their ensemble, or was trained like them on all cases.
            None: ``bundle`` made all.
        progress: Function that makes a ``Progress`` from a description.

    Raises:
        InputError: no prediction has a reference, or a prediction cannot be used: it is broken,
            calibrated already, of another model or of other settings; or ``bundle`` is neither the
            ensemble of ``singles`` nor configured like them.
        UsageError: the method is unknown, ``splits`` is below 0, or there is no place to write to.
    """
    _check_wanted(method, splits)
    found_bundle = None if bundle is None else load_bundle(bundle)
    if output is None:
        if found_bundle is None:
            rule = "is needed where no bundle keeps the calibration"
            raise UsageError("--output", rule, "Give for instance --output calibration.json")
        output = found_bundle.root / CALIBRATION
    predictions, manifest = Path(predictions), load_manifest(data)
    found, _ = matching(manifest, predictions)
    if found_bundle is None:
        model = model_of_records(found, predictions)
    else:
        model = model_of_bundle(found_bundle, singles)
    slugs = list(foreground(manifest).values())
    _check_classes(manifest, slugs, model)
    cases = [
        read_case_voxels(case, predictions / case.id, manifest)
        for case in progress("reading")(found)
    ]
    check_runs(cases, model, predictions)
    choice = choose_method(cases, slugs, method)
    fitted = fit_calibration(cases, slugs, choice.method)
    fitted = replace(
        fitted,
        triage=fitted_triage(cases, slugs, fitted.scaling, joined=len(model.singles) > 1),
        fitted_on=described(cases, manifest, model),
        checked=checked(cases, slugs, choice, splits, progress("checking")),
    )
    write_json(Path(output), fitted.to_json())
    if not fitted.scaling.changes and method != "none":
        logger.warning("%s", choice.reason)
    for level in LEVELS:
        for limit in fitted.limits(level):
            logger.warning("%s", limit)
    return fitted


def _check_wanted(method: ScalingChoice, splits: int) -> None:
    if method not in get_args(ScalingChoice):
        known = ", ".join(get_args(ScalingChoice))
        raise UsageError("method", f"must be one of {known}, not {method!r}", "Choose one")
    if splits < 0:
        raise UsageError("splits", f"must be 0 or more, not {splits}", "Give for instance 200")


def _check_classes(manifest: Manifest, slugs: Sequence[str], model: PredictingModel) -> None:
    """Refuse a data set whose classes are not those of the model."""
    if tuple(slugs) != model.classes:
        rule = f"has the classes {', '.join(slugs)}, not those of {model.name}: "
        remedy = f"Name the labels of the data set so: {', '.join(model.classes)}"
        raise InputError(manifest.name, rule + ", ".join(model.classes), remedy)


def check_runs(cases: Sequence[CaseVoxels], model: PredictingModel, predictions: Path) -> None:
    """Refuse cases of other models, or of settings other than the first case's.

    Raises:
        InputError: a case does not fit; the message names it.
    """
    first, remedy = cases[0].run, "Segment all cases alike, with --calibration off"
    made_of = "the weights and the inference.yaml"
    if model.identity is not None:
        remedy, made_of = "Adopt the predictions of one model alone", "the plans and labels"
    for case in cases:
        if case.run.get("bundle_hash") not in model.run_hashes:
            rule = f"was not made with {made_of} of {model.name}"
            raise InputError(predictions / case.case, rule, remedy)
        different = [name for name in BINDING if case.run.get(name) != first.get(name)]
        if different:
            rule = f"differs from {cases[0].case} in {', '.join(different)}"
            raise InputError(predictions / case.case, rule, remedy)


def fitted_triage(
    cases: Sequence[CaseVoxels], slugs: Sequence[str], scaling: Scaling, *, joined: bool = False
) -> Triage | None:
    """What is told of a case whose reference nobody knows; None of cases without features.

    Args:
        cases: Cases to fit to.
        slugs: Names of the foreground classes, in the order of their numbers.
        scaling: Scaling of their mean probability.
        joined: Whether it is for the ensemble of the networks that made the cases one by one.
    """
    if not all(case.run.get("features") for case in cases):
        return None
    known = []
    for case in cases:
        mask, dice = scaling(case.probability).argmax(axis=0), {}
        there = {slug: bool((case.reference == k).any()) for k, slug in enumerate(slugs, start=1)}
        for value, slug in enumerate(slugs, start=1):
            both = (mask == value) & (case.reference == value)
            sizes = [case.weight[one == value].sum() for one in (mask, case.reference)]
            dice[slug] = 2.0 * case.weight[both].sum() / sum(sizes) if there[slug] else np.nan
        known.append(KnownCase(case.patient, tuple(case.run["features"]), dice, there))
    return fit_triage(known, slugs, joined=joined)


def described(
    cases: Sequence[CaseVoxels],
    manifest: Manifest,
    model: PredictingModel,
) -> dict[str, Any]:
    """The record of what a calibration was fitted on; images are named by parts of their hash."""
    return model.described() | {
        "data": manifest.name,
        "cases": len(cases),
        "patients": len({case.patient for case in cases}),
        "weights_hash": model.weights_hash,
        "settings": {name: cases[0].run.get(name) for name in BINDING},
        "inputs": sorted(input_id(str(case.run.get("input_hash"))) for case in cases),
    }


def checked(
    cases: Sequence[CaseVoxels],
    slugs: Sequence[str],
    choice: Choice,
    splits: int,
    progress: Progress[int],
) -> dict[str, Any]:
    """Figures on patients that were left out of a fit; of coverage none with a single patient."""
    result: dict[str, Any] = {"choice": choice.to_json()}
    if splits and len({case.patient for case in cases}) > 1:
        coverage = split_coverage(cases, slugs, choice.method, splits=splits, progress=progress)
        result |= {"splits": splits, "share_fitted": SHARE, "levels": coverage}
    rounded: dict[str, Any] = _rounded(result)
    return rounded


def _rounded(value: Any) -> Any:
    """The value with five decimals, and None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 5)
    return value


STATEMENTS = {
    "outer": ("outer_holds", "the outer mask holds"),
    "inner": ("inner_right", "the inner mask is right in"),
    "volume": ("volume_covered", "the volume interval covers"),
}
"""Statement of a guarantee -> its figure, and the words for it."""


def summary_lines(fitted: Calibration) -> list[str]:
    """Lines that ``medsegdiff calibrate`` prints on the fit and on the cases left out of it."""
    on = fitted.fitted_on
    lines = [f"fitted on {on['cases']} cases of {on['patients']} patients of {on['data']}"]
    choice = fitted.checked.get("choice", {})
    lines += [f"scaling: {fitted.method}. {choice['reason']}"] if choice else []
    for method, candidate in choice.get("candidates", {}).items():
        for figure, after in candidate["after"].items():
            told = ", ".join(
                f"{slug} {_digits(choice['before'][figure][slug])} -> {_digits(value)}"
                for slug, value in after.items()
            )
            lines.append(f"{figure} on patients left out, {method}: {told}")
    for level, figures in fitted.checked.get("levels", {}).items():
        lines += [_coverage_line(level, slug, figures) for slug in fitted.missed]
    return lines


def _coverage_line(level: str, slug: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    told = []
    for name, (figure, words) in STATEMENTS.items():
        reached, vacuous = figures[figure][slug], figures[f"{name}_vacuous"][slug] or 0.0
        if reached is None:
            told.append(f"{words}: nothing can be said (vacuous)")
        else:
            share = f" (vacuous in {100 * vacuous:.0f} % of cases)" if vacuous else ""
            told.append(f"{words} {100 * reached:.1f} %{share}")
    return f"level {level} on patients left out, {slug}: {'; '.join(told)}"


def _digits(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
