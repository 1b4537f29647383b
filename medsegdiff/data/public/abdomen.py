"""Organs of the abdomen: AMOS 2022 and BTCV ("Synapse")."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

from medsegdiff.data.public.folders import paired

FIRST_MR = 500
"""Number of the first MR scan of AMOS; lower numbers are CT scans (readme of the set)."""


def amos_cases(root: Path, modality: Literal["CT", "MR", "both"] = "both") -> dict[str, Any]:
    """Entries of AMOS, training and validation scans; validation is fold 0 and training fold 1.

    Args:
        root: Folder of the set.
        modality: Modality of the scans.
    """
    entries: list[dict[str, str]] = []
    folds: list[list[str]] = []
    for part in ("Va", "Tr"):
        found = paired(root / f"images{part}", root / f"labels{part}", ".nii.gz", ".nii.gz")
        wanted = {n: files for n, files in found.items() if modality in ("both", _modality(n))}
        entries += [{"image": str(i), "label": str(x)} for i, x in wanted.values()]
        folds.append(list(wanted))
    return {"training": entries} | ({"folds": folds} if all(folds) else {})


def btcv_cases(root: Path) -> dict[str, Any]:
    """Entries of the 30 labelled BTCV scans, from ``RawData.zip`` or folders ``averaged-...``."""
    raw = paired(root / "Training/img", root / "Training/label", ".nii.gz", ".nii.gz")
    numbers = sorted({name.removeprefix("img").removeprefix("label") for name in raw})
    entries = [
        {
            "image": str(root / f"Training/img/img{number}.nii.gz"),
            "label": str(root / f"Training/label/label{number}.nii.gz"),
        }
        for number in numbers
    ]
    averaged = paired(
        root / "averaged-training-images",
        root / "averaged-training-labels",
        "_avg.nii.gz",
        "_avg_seg.nii.gz",
    )
    entries += [
        {"case": name, "image": str(image), "label": str(label)}
        for name, (image, label) in (averaged.items() if not raw else ())
    ]
    return {"training": entries}


amos_ct_cases = partial(amos_cases, modality="CT")
amos_mr_cases = partial(amos_cases, modality="MR")


def _modality(name: str) -> str:
    number = name.rpartition("_")[2]
    return "CT" if number.isdigit() and int(number) < FIRST_MR else "MR"
