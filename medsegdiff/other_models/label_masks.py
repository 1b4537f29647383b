"""Label maps of one model: ``x.nii.gz`` of each case, whose values are the data set's classes.

One model's masks say nothing of probability; several models' masks side by side do, by the share
of models that agree.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.images import read_image
from medsegdiff.data.layouts.name_pairs import direct_files
from medsegdiff.other_models.nifti_maps import case_of, model_of_files, unnamed
from medsegdiff.other_models.predicted import Known, Maps, Member, PredictedCase, Predictions

SUFFIXES = ("_seg", "-seg", "_mask", "_pred")


def recognises(folder: Path) -> bool:
    """Whether its first image file has no axis of classes."""
    files = direct_files(folder)
    if not files:
        return False
    try:
        values, geometry = read_image(next(iter(files.values())), label=True)
    except InputError:
        return False
    return values.ndim == len(geometry.shape) and bool((values == np.rint(values)).all())


def find(folder: Path, known: Known) -> Predictions:
    """The masks in a folder.

    Args:
        folder: Folder with a label map of each case.
        known: Facts that are known of them; the classes are needed.

    Raises:
        InputError: nobody names the classes.
    """
    if not known.classes:
        rule = "holds label maps, and nobody says which classes their values are"
        raise InputError(folder, rule, "Add --data, whose labels name them")
    cases = {}
    for name, path in direct_files(folder).items():
        ending = next((one for one in SUFFIXES if name.endswith(one)), "")
        read = partial(_read_mask, path, len(known.classes) + 1)
        cases[case_of(name.removesuffix(ending))] = PredictedCase((Member((path,), read),))
    model = replace(model_of_files(known.model, known.classes), hard=True)
    return Predictions("label maps", model, cases, notes=unnamed(known))


def _read_mask(path: Path, classes: int) -> tuple[Maps, Geometry]:
    values, geometry = read_image(path, label=True)
    unknown = sorted(set(np.unique(values).tolist()) - set(range(classes)))
    if unknown:
        rule = f"holds values {unknown[:5]} that the data set does not name (0 to {classes - 1})"
        raise InputError(path, rule, "Renumber the masks as the data set does")
    labels = values.reshape(geometry.shape).astype(np.intp)
    hot = np.moveaxis(np.eye(classes, dtype=np.float32)[labels], -1, 0)
    return hot, geometry
