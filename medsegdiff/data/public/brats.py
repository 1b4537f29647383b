"""BraTS, the gliomas of adults: a folder a case, with a file a channel."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from medsegdiff.data.public.folders import nifti


def cases_of(root: Path, folders: str, joint: str, channels: tuple[str, ...]) -> dict[str, Any]:
    """Entries of the cases in folders that match a pattern.

    Args:
        root: Folder of the training data.
        folders: Glob pattern of the cases' folders.
        joint: Text between the name of a case and that of a channel.
        channels: Endings of the files' names, in the order of the description's ``modality``.
    """
    entries = []
    for folder in sorted(path for path in root.glob(folders) if path.is_dir()):
        name = folder.name
        entries.append(
            {
                "case": name,
                "image": [str(nifti(folder, f"{name}{joint}{channel}")) for channel in channels],
                "label": str(_label(folder, f"{name}{joint}seg")),
                # BraTS 2023 numbers the scans of a patient: BraTS-GLI-<patient>-<scan>
                "patient": name.rpartition("-")[0] or name,
            }
        )
    return {"training": entries}


_CHANNELS = ("t1", "t1ce", "t2", "flair")
cases_2020 = partial(cases_of, folders="BraTS20_Training_*", joint="_", channels=_CHANNELS)
cases_2021 = partial(cases_of, folders="BraTS2021_*", joint="_", channels=_CHANNELS)
cases_2023 = partial(
    cases_of, folders="BraTS-GLI-*", joint="-", channels=("t1n", "t1c", "t2w", "t2f")
)


def _label(folder: Path, stem: str) -> Path:
    """The segmentation; one, of BraTS20_Training_355, was published as ``W39_1998.09.19_Segm``."""
    usual = nifti(folder, stem)
    odd = sorted(folder.glob("*_Segm.nii*"))
    return odd[0] if odd and not usual.exists() else usual
