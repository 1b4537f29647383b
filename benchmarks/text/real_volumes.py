"""Real scans with masks, slice by slice, that words are looked for in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from torch import Tensor

from benchmarks.text.described import cases_of, manifest_of
from medsegdiff.prompting import as_picture, examples_of

HEAD_LABELS: dict[str, tuple[int, ...]] = {
    "hippocampus": (47, 48),
    "thalamus": (59, 60),
    "caudate": (36, 37),
    "putamen": (57, 58),
    "lateral ventricle": (49, 50, 51, 52),
    "cerebellum": (38, 39, 40, 41, 71, 72, 73),
    "brain stem": (35,),
}
"""Name -> numbers of Neuromorphometrics."""
HEAD_SIDES: dict[str, tuple[int, ...]] = {
    "right hippocampus": (47,),
    "left hippocampus": (48,),
    "right thalamus": (59,),
    "left thalamus": (60,),
    "right caudate": (36,),
    "left caudate": (37,),
    "right putamen": (57,),
    "left putamen": (58,),
    "right lateral ventricle": (49, 51),
    "left lateral ventricle": (50, 52),
}
"""Name with its side -> numbers."""
HEART_LABELS: dict[str, tuple[int, ...]] = {
    "right ventricle": (1,),
    "myocardium": (2,),
    "left ventricle": (3,),
}


@dataclass(frozen=True)
class RealScan:
    """Slices of a scan.

    Attributes:
        name: Name of the case.
        pictures: Pictures (slices, 1 or 3, H, W) in [-1, 1].
        masks: Name -> masks (slices, H, W) bool.
    """

    name: str
    pictures: Tensor
    masks: dict[str, Tensor]


def head_scans(folder: Path, every: int, sides: bool = False) -> Iterator[RealScan]:
    """Coronal slices of whole heads, of which each ``every``-th one.

    Args:
        folder: Folder with ``*_SS.nii.gz`` images and ``*_glm.nii.gz`` labels.
        every: Step between slices.
        sides: Whether paired structures are named by their sides.
    """
    for file in sorted(folder.glob("*_SS.nii*")):
        numbers = HEAD_SIDES if sides else HEAD_LABELS
        label = file.with_name(file.name.replace("_SS", "_glm"))
        yield _volume(file.name.split("_SS")[0], file, label, numbers, "coronal", every)


def heart_scans(data: str, part: str, most: int) -> Iterator[RealScan]:
    """Axial slices of volumes of ACDC, one of each patient, which is taken in turn."""
    seen: set[str] = set()
    for case in cases_of(manifest_of(data), part):
        if case.patient not in seen and len(seen) < most:
            seen.add(case.patient)
            yield _volume(case.id, case.images[0], case.labels[0], HEART_LABELS, "axial", 1)


def pictures_of(data: str, part: str, names: Sequence[str], most: int) -> Iterator[RealScan]:
    """Photographs, or stacks of crops, of a set; the masks are the majority's."""
    manifest = manifest_of(data)
    for case in cases_of(manifest, part)[:most]:
        found = examples_of(case, manifest, "axial", ())
        if found:
            empty = torch.zeros(found[0].picture.shape[-2:], dtype=torch.bool)
            masks = {}
            for name in names:
                stack = [
                    dict(zip((t[-1] for t in one.texts), one.masks, strict=True)).get(name, empty)
                    for one in found
                ]
                masks[name] = torch.stack(stack)
            yield RealScan(case.id, torch.stack([one.picture for one in found]), masks)


def _volume(
    name: str, image: Path, label: Path, numbers: dict[str, tuple[int, ...]],
    plane: Literal["axial", "coronal"], every: int,
) -> RealScan:  # fmt: skip
    picture = as_picture(torch.from_numpy(_in_lps(image).astype(np.float32))[None])[0]
    labels = torch.from_numpy(_in_lps(label).astype(np.int16))
    shown = _slices(picture, plane)[::every, None]
    cut = _slices(labels, plane)[::every]
    return RealScan(name, shown, {k: torch.isin(cut, torch.tensor(v)) for k, v in numbers.items()})


def _in_lps(file: Path) -> np.ndarray:
    image = nib.load(file)
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(("L", "P", "S")))
    return np.asarray(apply_orientation(np.asanyarray(image.dataobj), turn))


def _slices(volume: Tensor, plane: Literal["axial", "coronal"]) -> Tensor:
    """(X, Y, Z) in LPS -> (slices, rows, columns), as radiologists see them."""
    if plane == "axial":
        return volume.permute(2, 1, 0)
    return volume.permute(1, 2, 0).flip(1)
