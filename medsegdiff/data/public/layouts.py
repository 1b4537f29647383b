"""The public sets whose cases are known once they are downloaded, by the name of their layout.

A description in ``data_manifests/`` gives labels and licence and names its layout. The layout finds
the cases in the folder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError
from medsegdiff.data.public import abdomen, acdc, brats, decathlon, isic, refuge, tn3k
from medsegdiff.data.public.folders import matches, require_files, require_layout


@dataclass(frozen=True)
class Layout:
    """Layout of a set on disk.

    Attributes:
        marks: Glob patterns; a folder is that of the set if any matches in it.
        cases: Function that lists the folder's content: ``training`` (entries as in a
            ``dataset.json``, paths absolute or from the folder), optionally ``labels``, ``folds``,
            ``test_patients``, and ``needed`` (other files that a complete set has).
        page: Page in ``docs/data_sets/``, without ending.
        raw: Glob patterns of the folder as downloaded, if it has to be converted first.
    """

    marks: tuple[str, ...]
    cases: Callable[[Path], dict[str, Any]]
    page: str
    raw: tuple[str, ...] = ()


def _task(prefix: str) -> Layout:
    marks = (f"imagesTr/{prefix}_*", f"labelsTr/{prefix}_*")
    return Layout(marks, decathlon.cases, "medical_decathlon")


LAYOUTS = {
    "msd_brain_tumour": _task("BRATS"),
    "msd_heart": _task("la"),
    "msd_liver": _task("liver"),
    "msd_hippocampus": _task("hippocampus"),
    "msd_prostate": _task("prostate"),
    "msd_lung": _task("lung"),
    "msd_pancreas": _task("pancreas"),
    "msd_hepatic_vessel": _task("hepaticvessel"),
    "msd_spleen": _task("spleen"),
    "msd_colon": _task("colon"),
    "brats2020": Layout(("BraTS20_Training_*/",), brats.cases_2020, "brats"),
    "brats2021": Layout(("BraTS2021_*/*_seg.nii*",), brats.cases_2021, "brats"),
    "brats2023": Layout(("BraTS-GLI-*/*-seg.nii*",), brats.cases_2023, "brats"),
    "isic2018": Layout(("ISIC2018_Task1*/",), isic.cases, "isic2018"),
    "refuge2": Layout(tuple(f"{part}/" for part in refuge.PARTS), refuge.cases, "refuge2"),
    "acdc": Layout(("training/patient*/", "testing/patient*/"), acdc.cases, "acdc"),
    "amos": Layout(("imagesTr/amos_*", "labelsTr/amos_*"), abdomen.amos_cases, "abdomen"),
    "amos_ct": Layout(("imagesTr/amos_*", "labelsTr/amos_*"), abdomen.amos_ct_cases, "abdomen"),
    "amos_mr": Layout(("imagesTr/amos_*", "labelsTr/amos_*"), abdomen.amos_mr_cases, "abdomen"),
    "btcv": Layout(
        ("Training/img/", "Training/label/", "averaged-training-*/"), abdomen.btcv_cases, "abdomen"
    ),
    "tn3k": Layout(("trainval-image/", "trainval-mask/"), tn3k.cases, "thyroid"),
    "ddti": Layout(
        ("imagesTr/ddti_*",), decathlon.cases, "thyroid", raw=("[0-9]*.xml", "[0-9]*_[0-9]*.jpg")
    ),
    "lidc_idri": Layout(
        ("imagesTr/LIDC-IDRI-*",), decathlon.cases, "lidc_idri", raw=("LIDC-IDRI-[0-9]*/",)
    ),
}


def list_cases(name: str, layout: str, root: Path) -> dict[str, Any]:
    """The part of a set's description that lists the content of its folder.

    Args:
        name: Name of the set, as the user wrote it.
        layout: Name of the layout, a key of ``LAYOUTS``.
        root: Folder of the set.

    Raises:
        InputError: the folder is not that of this set, the set has to be converted, or files are
            missing or empty.
    """
    known = LAYOUTS[layout]
    if not matches(root, known.marks) and matches(root, known.raw):
        rule = f"is {name} as downloaded, which has to be converted once"
        command = f"medsegdiff convert {name}={root} --output FOLDER"
        raise InputError(root, rule, f"Run {command}, then give {name}=FOLDER")
    _require_place(name, layout, root, known.marks)
    listing = known.cases(root)
    needed = [root / path for path in listing.pop("needed", [])]
    require_files(name, root, [*needed, *_files(listing, root)])
    return listing


def require_raw(name: str, root: Path) -> None:
    """Refuse a folder that is not the downloaded folder of a set that has to be converted.

    Args:
        name: Name of the set.
        root: Folder to check.

    Raises:
        InputError: the folder is another; the message says which, or where the right one lies.
    """
    _require_place(name, name, root, LAYOUTS[name].raw)


def _require_place(name: str, layout: str, root: Path, wanted: tuple[str, ...]) -> None:
    """Refuse another set's folder; sets that share a folder (AMOS and its CT scans) all fit."""
    own = LAYOUTS[layout].marks
    others = {key: (*one.marks, *one.raw) for key, one in LAYOUTS.items() if one.marks != own}
    require_layout(name, root, {name: wanted, **others}, LAYOUTS[layout].page)


def _files(listing: dict[str, Any], root: Path) -> list[Path]:
    files: list[Path] = []
    for entry in listing.get("training", []):
        for key in ("image", "label"):
            value = entry.get(key) or []
            files += [root / path for path in ([value] if isinstance(value, str) else value)]
    return files
