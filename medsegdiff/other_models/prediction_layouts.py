"""The layouts of predictions: how each is recognised, and who finds the cases in it.

A further layout is a file, and a line in ``LAYOUTS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medsegdiff.core.errors import InputError
from medsegdiff.data.layouts.name_pairs import direct_files
from medsegdiff.other_models import (
    label_masks,
    nifti_maps,
    nnunet_results,
    totalsegmentator_maps,
)
from medsegdiff.other_models.nifti_maps import case_of
from medsegdiff.other_models.predicted import Known, Predictions
from medsegdiff.other_models.side_by_side import joined

LayoutName = Literal["auto", "nnunet", "totalsegmentator", "maps", "masks", "members"]
"""Name of a layout on the command line; ``auto``: the first that recognises the folder."""


@dataclass(frozen=True)
class PredictionLayout:
    """A layout of predictions.

    Attributes:
        recognises: Whether a folder has this layout.
        find: Function that gives the predictions in a folder; ``Known`` is what is known of them.
    """

    recognises: Callable[[Path], bool]
    find: Callable[[Path, Known], Predictions]


LAYOUTS: Mapping[str, PredictionLayout] = {
    "nnunet": PredictionLayout(nnunet_results.recognises, nnunet_results.find),
    "totalsegmentator": PredictionLayout(
        totalsegmentator_maps.recognises, totalsegmentator_maps.find
    ),
    "masks": PredictionLayout(label_masks.recognises, label_masks.find),
    "maps": PredictionLayout(nifti_maps.recognises, nifti_maps.find),
}
"""Name -> layout; the first that recognises a folder counts."""

PROGRAMS = ("nnunet", "totalsegmentator")


def found_predictions(
    folders: Sequence[Path], known: Known, layout: LayoutName = "auto"
) -> Predictions:
    """The predictions in a folder; in several folders, or in one that holds these, an ensemble's.

    Args:
        folders: Folders of predictions, one at least; several are members of an ensemble.
        known: Facts that are known of them.
        layout: Name of the layout of each; ``members``: the one folder holds one for each member.

    Raises:
        InputError: a folder does not exist or has no known layout, or nothing in it can be used.
    """
    for folder in folders:
        if not folder.is_dir():
            raise InputError(folder, "no such folder", "Give the folder of the predictions")
    if len(folders) == 1 and (
        layout == "members" or (layout == "auto" and _members(folders[0], known))
    ):
        folders, layout = _inner(folders[0]), "auto"
    several = [_found(folder, known, layout) for folder in folders]
    found = joined(several, [folder.name for folder in folders])
    if found.model.hard and len(folders) < 2:
        rule = "holds masks of one model, which say nothing of probability"
        remedy = "Give its probabilities, or the folders of several models: adopt A B C"
        raise InputError(folders[0], rule, remedy)
    return found


def _found(folder: Path, known: Known, layout: LayoutName) -> Predictions:
    if layout in LAYOUTS:
        return LAYOUTS[layout].find(folder, known)
    for name, one in LAYOUTS.items():
        if one.recognises(folder) and not (name == "masks" and _one_file_a_class(folder, known)):
            return one.find(folder, known)
    if (folder / "plans.json").is_file() or list(folder.glob("fold_*")):
        raise InputError(folder, "has no case with probabilities", nnunet_results.SAVE)
    rule = "has no predictions of a known layout: nnU-Net, TotalSegmentator, maps or masks"
    raise InputError(folder, rule, "See medsegdiff adopt --help, and the guide on your own model")


def _one_file_a_class(folder: Path, known: Known) -> bool:
    """Whether files end with a class's name: they are maps, however few values they have."""
    return any(
        nifti_maps.class_of(name, known.classes) and name not in known.cases
        for name in direct_files(folder)
    )


def _inner(folder: Path) -> list[Path]:
    return [one for one in sorted(folder.iterdir()) if one.is_dir() and one.name[0] != "."]


def _members(folder: Path, known: Known) -> bool:
    """Whether a folder holds folders of the same cases by several models, one each."""
    inner = _inner(folder)
    if len(inner) < 2 or LAYOUTS["nnunet"].recognises(folder):
        return False
    if all(any(LAYOUTS[name].recognises(one) for name in PROGRAMS) for one in inner):
        return True
    if any(one.name in known.cases for one in inner):
        return False
    names = (name for one in inner for name in direct_files(one))
    return any(case_of(name) in known.cases or name in known.cases for name in names)
