"""Read the reference of a case, and the files of its segmentation."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import UNKNOWN_CLASS, Geometry
from medsegdiff.data.formats import is_photograph
from medsegdiff.data.images import read_geometry, read_image
from medsegdiff.data.manifest import Case, Manifest, class_slug
from medsegdiff.data.pixel_spacing import with_spacing
from medsegdiff.data.transforms import check_grid, read_case_labels

_ROUNDING = 1e-3
_DO_AGAIN = "Segment the case again with --overwrite"
_MAPS = ("mean_", "variance_")
_OWN = (*_MAPS, "entropy", "members", "anchor", "inner_", "outer_")

DAMAGE = (OSError, MemoryError, RuntimeError, ValueError)
"""Exceptions that reading a damaged case may raise besides ``InputError``."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """The files of a segmented case; maps that were not written are absent.

    Attributes:
        seg: Label map (*shape) of the ensemble.
        mean: Mean probability (*shape) in [0, 1], by class.
        variance: Variance (*shape) over the members in [0, 0.25], by class.
        entropy: Predictive entropy (*shape) in nats, or None.
        members: Label maps (N, *shape) of the members, or None.
        anchor: Label map (*shape) of the deterministic pass, or None.
        run: Content of ``<case>_run.json``; empty where there is a mask alone.
        guarantee: Inner and outer mask (*shape), by class; empty without a guarantee.
    """

    seg: NDArray[np.uint8]
    mean: dict[str, NDArray[np.float32]]
    variance: dict[str, NDArray[np.float32]]
    entropy: NDArray[np.float32] | None
    members: NDArray[np.uint8] | None
    anchor: NDArray[np.uint8] | None
    run: dict[str, Any]
    guarantee: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = field(default_factory=dict)


def foreground(manifest: Manifest) -> dict[int, str]:
    """Names of the foreground classes in files and reports, by class number."""
    return {value: class_slug(name) for value, name in manifest.labels.items() if value != 0}


def read_reference(case: Case, manifest: Manifest) -> tuple[NDArray[np.uint8], Geometry]:
    """Label maps (M, *shape) of all raters, ``UNKNOWN_CLASS`` where ignored, and the geometry.

    A volume of one slice is read as a 2D image, since its surfaces have no third direction.

    Raises:
        InputError: a label is unreadable, has another grid than the image, or unknown values.
    """
    geometry = read_geometry(case.images[0])
    annotations = read_case_labels(case, geometry, manifest)
    geometry = with_spacing(geometry, case.spacing)
    if geometry.shape[2:] == (1,):
        geometry = replace(geometry, shape=geometry.shape[:2])
    return annotations.reshape(len(annotations), *geometry.shape), geometry


def read_prediction(
    folder: Path, case: str, classes: dict[int, str], geometry: Geometry
) -> Prediction:
    """The files of a segmented case (see :class:`Prediction`).

    A mask by itself may come from any program. Maps must come from this package, with a mean and a
    variance for each class and ``<case>_run.json``, which is written last.

    Args:
        folder: Folder that holds ``<case>_seg.nii.gz`` and the other files.
        case: Name of the case.
        classes: Names of the foreground classes, by class number.
        geometry: Geometry of the input, which every file must share.

    Raises:
        InputError: there is no mask, the case was not finished or has other classes, a file is
            unreadable or has another grid, or values are out of range.
    """

    def path(name: str) -> Path:
        return folder / f"{case}_{name}.nii.gz"

    def labels(name: str) -> NDArray[np.uint8]:
        return _read_labels(path(name), geometry, classes)

    def maps(kind: str, highest: float) -> dict[str, NDArray[np.float32]]:
        files = {slug: path(f"{kind}_{slug}") for slug in classes.values()}
        return {s: _read_map(f, geometry, highest) for s, f in files.items() if f.exists()}

    if not path("seg").exists():
        rule = "the mask of the case is missing"
        raise InputError(path("seg"), rule, f"{_DO_AGAIN} and --format nifti")
    record = folder / f"{case}_run.json"
    _check_complete(record, case, classes)
    entropy, run = path("entropy"), _read_run(record) if record.exists() else {}

    def inside(name: str) -> NDArray[np.bool_]:
        return _read_labels(path(name), geometry, {1: "inside"})[0] == 1

    promised = classes.values() if run.get("guarantee") else ()
    return Prediction(
        seg=labels("seg")[0],
        mean=maps("mean", 1.0),
        variance=maps("variance", 0.25),
        entropy=_read_map(entropy, geometry, np.inf) if entropy.exists() else None,
        members=labels("members") if path("members").exists() else None,
        anchor=labels("anchor")[0] if path("anchor").exists() else None,
        run=run,
        guarantee={slug: (inside(f"inner_{slug}"), inside(f"outer_{slug}")) for slug in promised},
    )


def _check_complete(record: Path, case: str, classes: dict[int, str]) -> None:
    """Refuse maps without a record, and a record without the maps of every class."""
    names = sorted(path.name.removesuffix(".nii.gz") for path in record.parent.glob("*.nii.gz"))
    own = [name.removeprefix(f"{case}_") for name in names if name.startswith(f"{case}_")]
    own = [name for name in own if name.startswith(_OWN)]
    if not record.exists():
        if own:
            rule = f"is missing beside the {own[0]} map: the case was not finished"
            raise InputError(record, rule, _DO_AGAIN)
        return
    needed = [kind + slug for kind in _MAPS for slug in classes.values()]
    if not set(needed) <= set(own):
        found = [name for name in own if name.startswith(_MAPS)] or ["none"]
        rule = f"the data set's labels need the maps {', '.join(needed)}; found: {', '.join(found)}"
        remedy = "Name the labels of the data set as the bundle does, or segment the case again"
        raise InputError(record.parent, rule, f"{remedy} with --overwrite")


def _read_on_grid(path: Path, geometry: Geometry) -> NDArray[Any]:
    """Values (*shape) or (*shape, N) of a file that has to have the case's grid."""
    values, own = read_image(path)
    grid, found = (*geometry.shape, 1)[:3], (*values.shape, 1)[:3]
    if found != grid:
        rule = f"has shape {values.shape}, but the case has {geometry.shape}"
        raise InputError(path, rule, _DO_AGAIN)
    if not any(map(is_photograph, geometry.sources)):  # which have no place in the world
        check_grid(path, geometry, own, "its image", _DO_AGAIN)
    return values.reshape(*geometry.shape, *values.shape[3:])


def _read_labels(path: Path, geometry: Geometry, classes: dict[int, str]) -> NDArray[np.uint8]:
    """Label maps (N, *shape); N is 1 where the file holds one."""
    values = _read_on_grid(path, geometry)
    unknown = sorted(set(np.unique(values).tolist()) - {0, *classes})
    if unknown:
        rule = f"holds values {unknown[:5]} that the data set does not name"
        raise InputError(path, rule, "Evaluate it with the data set that its bundle is for")
    stacked = values[..., None] if values.ndim == len(geometry.shape) else values
    return np.moveaxis(stacked, -1, 0).astype(np.uint8)


def _read_map(path: Path, geometry: Geometry, highest: float) -> NDArray[np.float32]:
    values = _read_on_grid(path, geometry).astype(np.float32)
    if values.shape != geometry.shape:
        rule = f"has shape {values.shape}, but the case has {geometry.shape}"
        raise InputError(path, rule, _DO_AGAIN)
    low, high = float(values.min()), float(values.max())
    if not (low >= -_ROUNDING and high <= highest + _ROUNDING):
        rule = f"must lie in [0, {highest:g}], but holds {low:g} to {high:g}"
        raise InputError(path, rule, _DO_AGAIN)
    return np.clip(values, 0.0, highest)


def _read_run(path: Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(path, f"cannot be read as JSON ({error})", _DO_AGAIN) from None
    if not isinstance(run, dict):
        raise InputError(path, "must hold a JSON object", _DO_AGAIN)
    return run


def known_voxels(annotations: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Mask (*shape) of the voxels that every rater (M, *shape) gave a class; None if all are."""
    known = (annotations != UNKNOWN_CLASS).all(axis=0)
    return None if known.all() else np.asarray(known)


def without_unknown(prediction: Prediction, known: NDArray[np.bool_]) -> Prediction:
    """A prediction whose masks are background where the class is not known; maps stay."""

    def kept(mask: NDArray[Any]) -> NDArray[Any]:
        return np.where(known, mask, np.zeros((), mask.dtype))

    return replace(
        prediction,
        seg=kept(prediction.seg),
        members=None if prediction.members is None else kept(prediction.members),
        anchor=None if prediction.anchor is None else kept(prediction.anchor),
        guarantee={s: (kept(i), kept(o)) for s, (i, o) in prediction.guarantee.items()},
    )


def majority(annotations: NDArray[np.uint8], classes: dict[int, str]) -> NDArray[np.uint8]:
    """Class (*shape) that more than half of the raters (M, *shape) chose, else background.

    Args:
        annotations: Label maps (M, *shape) of the raters.
        classes: Names of the foreground classes, by class number.
    """
    hard = np.zeros(annotations.shape[1:], dtype=np.uint8)
    for value in classes:
        hard[2 * np.count_nonzero(annotations == value, axis=0) > len(annotations)] = value
    return hard


def matching(manifest: Manifest, predictions: Path) -> tuple[list[Case], dict[str, Any]]:
    """The cases that have a reference and a prediction, and the numbers of those with one alone.

    Args:
        manifest: Description of the data set.
        predictions: Folder with one folder for each segmented case.

    Raises:
        InputError: the folder does not exist, or no case has both.
    """
    if not predictions.is_dir():
        raise InputError(predictions, "no such folder", "Give the folder that segmenting wrote")
    folders = {path.name for path in predictions.iterdir() if path.is_dir() and _is_case(path)}
    labelled = [case for case in manifest.cases if case.labels]
    cases = [case for case in labelled if case.id in folders]
    if not cases:
        rule = (
            f"holds no folder with files of one of the {len(labelled)} labelled cases of the data"
        )
        known = ", ".join(case.id for case in labelled[:3])
        raise InputError(predictions, rule, f"Segment some of them first: {known} ...")
    left_out = {
        "without_prediction": len(labelled) - len(cases),
        "without_reference": len(folders) - len(cases),
    }
    return cases, left_out


def _is_case(folder: Path) -> bool:
    """Whether a folder holds files named after it; an unreadable one counts, and fails later."""
    try:
        return any(path.name.startswith(f"{folder.name}_") for path in folder.iterdir())
    except OSError:
        return True
