"""TotalSegmentator's probabilities: ``x.npz`` and ``x.pkl`` of its ``--save_probabilities``.

The two are nnU-Net's files of the image as TotalSegmentator prepared it: cropped, turned to RAS and
resampled (github.com/wasserth/TotalSegmentator, totalsegmentator/nnunet.py). The pickle has its
grid. The array does not name its classes; of a task of several models, such as ``total`` without
``--fast``, it holds the classes of the last one alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import LPS_TO_RAS, Geometry
from medsegdiff.other_models.array_files import read_plain_pickle, read_probabilities
from medsegdiff.other_models.predicted import (
    Known,
    Maps,
    Member,
    OtherModel,
    PredictedCase,
    Predictions,
)
from medsegdiff.other_models.probability_maps import summing_to_one

PROGRAM = "TotalSegmentator"
_AGAIN = "Save them again: TotalSegmentator ... --save_probabilities FOLDER/x.npz"


def recognises(folder: Path) -> bool:
    """Whether it has ``x.npz`` beside ``x.pkl``, and no ``plans.json`` of nnU-Net's own."""
    names = {file.stem for file in folder.glob("*.npz")}
    pickles = {file.stem for file in folder.glob("*.pkl")}
    return bool(names & pickles) and not (folder / "plans.json").is_file()


def find(folder: Path, known: Known) -> Predictions:
    """The predictions in a folder.

    Args:
        folder: Folder with ``x.npz`` and ``x.pkl`` of each case.
        known: Facts that are known of them; ``model`` may name the task.

    Raises:
        InputError: no case is whole, or the first one's probabilities cannot be read.
    """
    cases: dict[str, PredictedCase] = {}
    failures: dict[str, InputError] = {}
    for name in sorted({file.stem for kind in ("*.npz", "*.pkl") for file in folder.glob(kind)}):
        maps, grid = folder / f"{name}.npz", folder / f"{name}.pkl"
        missing = next((one for one in (maps, grid) if not one.is_file()), None)
        if missing is not None:
            failures[name] = InputError(missing, "is missing: the case is half written", _AGAIN)
        else:
            read = partial(_read_maps, maps, grid)
            cases[name] = PredictedCase((Member((maps, grid), read),))
    if not cases:
        rule = "has no case with both of its files, x.npz and x.pkl"
        raise InputError(folder, rule, _AGAIN)
    channels = len(read_probabilities(next(iter(cases.values())).files[0]))
    task = known.model or "unnamed task"
    identity = {"program": PROGRAM, "task": known.model, "channels": channels}
    model = OtherModel(
        PROGRAM, f"{PROGRAM} {task}", identity, ("background",) + (None,) * (channels - 1)
    )
    notes = [f"the files do not name their {channels} classes"]
    if known.model is None:
        notes.append("the files do not name TotalSegmentator's task: name it with --model")
    return Predictions(PROGRAM, model, cases, failures, tuple(notes), resampled=True)


def _read_maps(path: Path, grid: Path) -> tuple[Maps, Geometry]:
    stored = read_probabilities(path)
    maps = summing_to_one(stored.transpose(0, *range(stored.ndim - 1, 0, -1)), path)
    return maps, _geometry(read_plain_pickle(grid), maps.shape[1:], grid)


def _geometry(properties: Any, shape: tuple[int, ...], source: Path) -> Geometry:
    """The grid that nnU-Net's properties describe, as SimpleITK or as nibabel."""
    try:
        if "nibabel_stuff" in properties:
            found = properties["nibabel_stuff"]
            affine = found.get("reoriented_affine", found["original_affine"])
        else:
            affine = _affine_of_itk(properties["sitk_stuff"])
        affine = np.asarray(affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError(f"affine of shape {affine.shape}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        rule = f"does not say where the maps lie ({type(error).__name__}: {error})"
        raise InputError(source, rule, _AGAIN) from None
    return Geometry(shape, affine, sources=(source,))


def _affine_of_itk(grid: Mapping[str, Any]) -> Any:
    """Spacing, origin and direction in LPS -> voxel index to RAS+ mm."""
    affine = np.eye(4)
    direction = np.reshape(np.asarray(grid["direction"], dtype=np.float64), (3, 3))
    affine[:3, :3] = direction * np.asarray(grid["spacing"], dtype=np.float64)
    affine[:3, 3] = grid["origin"]
    return LPS_TO_RAS @ affine
