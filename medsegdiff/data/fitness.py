"""Check whether a data set can be trained on, and summarise its content."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry, LengthUnit
from medsegdiff.data.formats import without_ending
from medsegdiff.data.label_values import UnknownValuesError, suggested
from medsegdiff.data.manifest import (
    Case,
    Manifest,
    case_id,
    load_manifest,
    repeats,
    shorten,
)
from medsegdiff.data.pixel_spacing import with_spacing
from medsegdiff.data.transforms import read_case_labels, read_channels

SIZE_FACTOR = 8.0
"""Factor of the number of voxels, to the median volume, from which a case is reported."""
SPACING_FACTOR = 2.5
"""Factor of the voxel size along an axis, to the median, from which a case is reported."""
_MOST_SHOWN = 10


@dataclass(frozen=True)
class Problem:
    """A problem of a case or of the data set.

    Attributes:
        case: Name of the case or file; empty if the problem concerns the whole data set.
        severity: Severity; an ``error`` makes a case unusable or the results wrong, a ``warning``
            may not.
        rule: Text that says what was expected and what was found.
        remedy: Text that says what can be done about it.
    """

    case: str
    severity: Literal["error", "warning"]
    rule: str
    remedy: str


@dataclass(frozen=True)
class CaseFacts:
    """Facts of a readable case.

    Attributes:
        case: Name of the case.
        shape: Number of voxels along each spatial axis of the file.
        spacing: Size of a voxel along each spatial axis, in ``unit``.
        unit: Unit of the spacing: pixels for a photograph whose spacing is not known.
        channels: Number of channels.
        low: Least intensity.
        high: Greatest intensity.
        label_voxels: Number of voxels of each class, the mean over raters; empty without a label.
        digest: SHA-256 of the image's values, and its shape.
    """

    case: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    unit: LengthUnit
    channels: int
    low: float
    high: float
    label_voxels: dict[int, float]
    digest: str


@dataclass(frozen=True)
class CheckReport:
    """Outcome of :func:`check`.

    Attributes:
        cases: Facts of the cases that could be read.
        facts: Facts of the data set: plain numbers, strings, lists and dictionaries.
        problems: Problems that were found.
    """

    cases: tuple[CaseFacts, ...]
    facts: dict[str, Any]
    problems: tuple[Problem, ...]

    @property
    def fit(self) -> bool:
        """True if there is no error; there may be warnings."""
        return all(problem.severity != "error" for problem in self.problems)


def check(
    data: str | Path | Manifest,
    progress: Callable[[Sequence[Case]], Iterable[Case]] = iter,
) -> CheckReport:
    """A report of all problems of a data set; every case is read once.

    Args:
        data: Data set, or input of :func:`~medsegdiff.data.manifest.load_manifest`.
        progress: Wrapper of the cases that shows progress, such as ``tqdm``.

    Raises:
        InputError: the description itself cannot be read.
    """
    manifest = data if isinstance(data, Manifest) else load_manifest(data)
    cases: list[CaseFacts] = []
    problems = [*_check_folds(manifest), *_check_names(manifest), *_check_unlisted(manifest)]
    problems += _check_number(manifest)
    unknown: dict[str, tuple[int, ...]] = {}
    for case in progress(manifest.cases):
        facts, found = _examine(case, manifest, unknown)
        problems += found
        if facts is not None:
            cases.append(facts)
    problems += _check_duplicates(cases, manifest)
    problems += _check_outliers(cases, manifest.spatial_dims)
    if 2 * len(unknown) > len(manifest.cases):
        problems = [problem for problem in problems if problem.case not in unknown]
        problems += _check_values(unknown, cases, manifest)
    else:
        problems += _check_classes(cases, manifest)
    return CheckReport(tuple(cases), _summarise(cases, manifest), tuple(problems))


def _examine(
    case: Case, manifest: Manifest, unknown: dict[str, tuple[int, ...]]
) -> tuple[CaseFacts | None, list[Problem]]:
    """Facts and problems of a case; ``unknown`` gets a label's values if they are no classes."""
    problems: list[Problem] = []

    def report(rule: str, remedy: str, severity: Literal["error", "warning"] = "error") -> None:
        problems.append(Problem(case.id, severity, rule, remedy))

    missing_images = [path for path in case.images if not os.path.exists(path)]
    missing_labels = [path for path in case.labels if not os.path.exists(path)]
    for path in missing_images:
        paired = " of a label" if case.labels and not missing_labels else ""
        report(f"image{paired} is {_missing(path)}", "Add the file or remove the entry")
    for path in missing_labels:
        report(f"label of an image is {_missing(path)}", "Add the file or remove the entry")
    if not case.labels:
        report("image without a label", "Label it; it is not trained on", "warning")
    if missing_images:
        return None, problems
    try:
        image, geometry = read_channels(case.images, manifest.spatial_dims, len(manifest.channels))
        voxels = {}
        if case.labels and not missing_labels:
            labels = read_case_labels(case, geometry, manifest)
            voxels = {v: float((labels == v).sum() / len(labels)) for v in manifest.labels}
    except UnknownValuesError as error:
        unknown[case.id] = error.found
        report(f"{Path(error.subject).name}: {error.rule}", error.remedy)
        return None, problems
    except InputError as error:
        report(f"{Path(error.subject).name}: {error.rule}", error.remedy)
        return None, problems
    except (OSError, MemoryError) as error:
        report(f"cannot be read ({str(error) or type(error).__name__})", "Check its files")
        return None, problems
    for name, channel in zip(manifest.channels, image, strict=True):
        if channel.min() == channel.max():
            report(f"image ({name}) is constant: {channel.min():g}", "Export the file again")
    return _facts(case.id, image, with_spacing(geometry, case.spacing), voxels), problems


def _missing(path: Path) -> str:
    return (
        f"a link to a file that is not there: {path}"
        if os.path.islink(path)
        else f"missing: {path}"
    )


def _facts(
    case: str, image: NDArray[np.float32], geometry: Geometry, voxels: dict[int, float]
) -> CaseFacts:
    return CaseFacts(
        case=case,
        shape=geometry.shape,
        spacing=tuple(round(size, 6) for size in geometry.spacing),
        unit=geometry.unit,
        channels=len(image),
        low=float(image.min()),
        high=float(image.max()),
        label_voxels=voxels,
        digest=f"{hashlib.sha256(image.data).hexdigest()} {image.shape}",
    )


def _check_folds(manifest: Manifest) -> list[Problem]:
    listed = [patient for fold in (*manifest.folds, manifest.test) for patient in fold]
    patients = {case.patient for case in manifest.cases}
    problems = []
    repeated = repeats(listed)
    if repeated:
        rule = f"patients are in several folds: {shorten(manifest.places(repeated))}"
        problems.append(Problem("", "error", rule, "Put each into one fold"))
    strangers = sorted(set(listed) - patients)
    if strangers:
        rule = f"patients of the folds have no case: {shorten(manifest.places(strangers))}"
        problems.append(Problem("", "warning", rule, "Add their cases or remove them"))
    if not repeated and not any(_can_be_trained(manifest, k) for k in range(len(manifest.folds))):
        labelled = len({case.patient for case in manifest.cases if case.labels})
        rule = f"no fold can be trained: there are labels of {labelled} patient"
        rule += "s" if labelled != 1 else ""
        remedy = "Add labelled cases of other patients, and put them into different folds"
        problems.append(Problem("", "error", rule, remedy))
    left_out = [case.id for case in manifest.cases if case.patient not in set(listed)]
    if left_out:
        rule = f"cases of patients in no fold, never used for training: {shorten(left_out)}"
        problems.append(Problem("", "warning", rule, "Put each patient into a fold"))
    return problems


def _can_be_trained(manifest: Manifest, fold: int) -> bool:
    try:
        manifest.split(fold)
    except InputError:
        return False
    return True


def _check_number(manifest: Manifest) -> list[Problem]:
    if len(manifest.cases) >= manifest.published:
        return []
    rule = f"{len(manifest.cases)} of the {manifest.published} published cases are here"
    return [Problem("", "warning", rule, "Download the others, unless you want this part alone")]


def _check_names(manifest: Manifest) -> list[Problem]:
    """Warn of cases called after DICOM folders: such names are shown, and may name patients."""
    folders = (case for case in manifest.cases if os.path.isdir(case.images[0]))
    named = [case.id for case in folders if case.id == case_id(case.images)]
    if not named:
        return []
    rule = f"{len(named)} cases are called after their DICOM folders, which may name patients"
    return [Problem("", "warning", rule, "Give each a 'case' of its own")]


def _check_unlisted(manifest: Manifest) -> list[Problem]:
    """Image and label files beside the listed ones that no case refers to.

    A layout lists all files of its set, so that other files are left out on purpose.
    """
    if manifest.layout:
        return []
    images = _unlisted_files(manifest, "imagesTr", [p for c in manifest.cases for p in c.images])
    labels = _unlisted_files(manifest, "labelsTr", [p for c in manifest.cases for p in c.labels])
    listed = {case.id for case in manifest.cases}
    problems = []
    for name in sorted(images | labels):
        if name in labels and name in listed:
            rule = f"label file is not in the listing: {labels[name]}"
        elif name in images and labels.get(name) not in (None, images[name]):
            rule = f"image and label are not in the listing: {images[name]}, {labels[name]}"
        elif name in images:
            rule = f"image without a label, not in the listing: {images[name]}"
        else:
            rule = f"label without an image, not in the listing: {labels[name]}"
        problems.append(Problem(name, "warning", rule, "List both, or remove the file"))
    return problems


def _unlisted_files(manifest: Manifest, usual: str, listed: Sequence[Path]) -> dict[str, Path]:
    """Paths of the files in the data set's folders that are not listed, by name without ending."""
    known = {path for case in manifest.cases for path in case.images + case.labels}
    folders = {path.parent for path in listed} | {manifest.root / usual}
    folders -= known  # a DICOM series, which may hold the case's label as well
    return {
        case_id([path]): path
        for folder in folders
        for path in _files_in(folder)
        if without_ending(path.name) != path.name
        and not path.name.startswith(".")
        and path not in known
    }


def _files_in(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except OSError:  # an unreadable folder is reported with its cases
        return []


def _check_duplicates(cases: Sequence[CaseFacts], manifest: Manifest) -> list[Problem]:
    patients = {case.id: case.patient for case in manifest.cases}
    groups: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        groups[case.digest].append(case.case)
    problems = []
    for first, *others in groups.values():
        for other in others:
            same = patients[first] == patients[other]
            where = "" if same else ", though they are said to be of different patients"
            rule = f"image is the same as that of {first}{where}"
            remedy = "Remove one of them" if same else "Remove one, or correct the patient"
            problems.append(Problem(other, "warning" if same else "error", rule, remedy))
    return problems


def _check_outliers(cases: Sequence[CaseFacts], spatial_dims: int) -> list[Problem]:
    """Compare size and spacing with the median case; in 2D each slice of a stack is a case."""
    comparable = [case for case in cases if len(case.shape) >= spatial_dims]
    if len(comparable) < 3:
        return []
    shapes = np.array([case.shape[:spatial_dims] for case in comparable], dtype=np.float64)
    spacings = np.array([case.spacing[:spatial_dims] for case in comparable])
    sizes = shapes.prod(axis=1) / np.median(shapes.prod(axis=1))
    stretches = spacings / np.median(spacings, axis=0)
    usual = " x ".join(f"{size:.0f}" for size in np.median(shapes, axis=0))
    remedy = "Is it of another kind? Crop or resample it, or remove it"
    problems = []
    for case, size, stretch in zip(comparable, sizes, stretches, strict=True):
        factor = max(size, 1 / size)
        if factor >= SIZE_FACTOR:
            much = f"{factor:.0f} times " + ("more" if size > 1 else "fewer")
            windows = ", and is processed in windows" if size > 1 else ""
            shape = " x ".join(map(str, case.shape[:spatial_dims]))
            rule = f"has {shape} voxels, {much} than the usual {usual}{windows}"
            problems.append(Problem(case.case, "warning", rule, remedy))
        axis = int(np.argmax(np.maximum(stretch, 1 / stretch)))
        factor = max(stretch[axis], 1 / stretch[axis])
        if factor >= SPACING_FACTOR:
            kind = "longer" if stretch[axis] > 1 else "shorter"
            rule = f"voxels are {factor:.1f} times {kind} than usual along axis {axis}"
            problems.append(Problem(case.case, "warning", rule, remedy))
    return problems


def _check_classes(cases: Sequence[CaseFacts], manifest: Manifest) -> list[Problem]:
    labelled = [case for case in cases if case.label_voxels]
    if not labelled:
        return [Problem("", "error", "no case has a readable label", "Add labels")]
    present = {
        value: {case.case for case in labelled if case.label_voxels[value]}
        for value in manifest.labels
    }
    if not any(cases for value, cases in present.items() if value != 0):
        rule = f"all {len(labelled)} labels are empty: there is nothing to learn from"
        return [Problem("", "error", rule, "Check how the labels were exported")]
    never = [
        Problem("", "warning", f"class {value} ({name}) never occurs", "Remove it from 'labels'")
        for value, name in manifest.labels.items()
        if not present[value]
    ]
    if len(labelled) < sum(bool(case.labels) for case in manifest.cases):
        return never  # what the others hold is not known
    return never + _check_folds_of_classes(present, manifest)


def _check_folds_of_classes(present: dict[int, set[str]], manifest: Manifest) -> list[Problem]:
    """Classes that a fold holds out none of, or leaves none of to train on.

    Args:
        present: Names of the cases in which each class occurs.
        manifest: Description of the data set.
    """
    judged = {case.patient for case in manifest.cases if case.labels}
    folds = {k: judged & set(fold) for k, fold in enumerate(manifest.folds) if judged & set(fold)}
    problems = []
    for value, name in manifest.labels.items():
        where = {case.patient for case in manifest.cases if case.id in present[value]}
        having = [k for k, fold in folds.items() if where & fold]
        without = [k for k in folds if k not in having]
        if value == 0 or not having or len(folds) < 2:
            continue
        if without:
            numbers = ", ".join(map(str, without))
            rule = (
                f"class {value} ({name}) is missing from fold {numbers}, where it cannot be judged"
            )
            remedy = "Deal the cases to 'folds' so that each has some, or use fewer folds"
            problems.append(Problem("", "warning", rule, remedy))
        if len(having) == 1:
            rule = (
                f"class {value} ({name}) occurs in fold {having[0]} alone, so that nothing is left"
            )
            rule += " to learn it from when that fold is held out"
            problems.append(Problem("", "warning", rule, "Deal its cases to several folds"))
    return problems


def _check_values(
    unknown: dict[str, tuple[int, ...]], cases: Sequence[CaseFacts], manifest: Manifest
) -> list[Problem]:
    """One error for all labels whose values are no classes, with a remedy for the whole set."""
    values = {value for found in unknown.values() for value in found}
    values |= {value for case in cases for value, n in case.label_voxels.items() if n}
    shown = ", ".join(map(str, sorted(values)[:_MOST_SHOWN]))
    more = " ..." if len(values) > _MOST_SHOWN else ""
    known = ", ".join(map(str, manifest.labels))
    rule = f"labels of {len(unknown)} cases hold the values {shown}{more}, but 'labels' has {known}"
    return [Problem("", "error", rule, suggested(values, manifest.labels))]


def _summarise(cases: Sequence[CaseFacts], manifest: Manifest) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": manifest.name,
        "cases": len(manifest.cases),
        "readable": len(cases),
        "labelled": sum(bool(case.label_voxels) for case in cases),
        "patients": len({case.patient for case in manifest.cases}),
        "raters": manifest.raters,
        "channels": list(manifest.channels),
        "spatial_dims": manifest.spatial_dims,
        "folds": [len(fold) for fold in manifest.folds],
    }
    if manifest.layout:
        facts["layout"] = manifest.layout
    if manifest.notes:
        facts["inferred"] = list(manifest.notes)
    if manifest.ignored is not None:
        facts["left_out_of_loss_and_metrics"] = f"label value {manifest.ignored}"
    if manifest.test:
        facts["kept_for_the_test"] = len(manifest.test)
    in_mm = [case for case in cases if case.unit == "mm"]
    if len(in_mm) < len(cases):
        facts["unit"] = "pixels" if not in_mm else f"pixels, of {len(in_mm)} cases mm"
        facts["unit"] += ": give 'spacing' if it is known"
    for name, rows in (
        ("shape", [case.shape[: manifest.spatial_dims] for case in cases]),
        ("spacing_mm", [case.spacing[: manifest.spatial_dims] for case in in_mm]),
    ):
        if rows:
            facts[name] = {
                kind: summary(np.array(rows), axis=0).tolist()
                for kind, summary in (("min", np.min), ("median", np.median), ("max", np.max))
            }
    if cases:
        facts["intensity"] = {
            "min": min(case.low for case in cases),
            "lowest_max": min(case.high for case in cases),
            "max": max(case.high for case in cases),
        }
        facts["label_voxels"] = {
            name: sum(case.label_voxels.get(value, 0.0) for case in cases)
            for value, name in manifest.labels.items()
        }
    return facts
