"""Predictions as other programs write them, made of a generated cohort's own references."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray
from scipy import ndimage

from medsegdiff.data.manifest import Case, Manifest

TRAINER = "nnUNetTrainer__nnUNetPlans__3d_fullres"
LABELS = {"background": 0, "Anterior": 1, "Posterior": 2}
PLANS = {"dataset_name": "Dataset004_Phantom", "image_reader_writer": "SimpleITKIO"}


def probabilities(case: Case, seed: int = 0, blur: float = 1.0) -> NDArray[np.float32]:
    """Probability (3, *shape) of a blurred and shifted reference, summing to 1."""
    reference = np.asarray(nib.load(case.labels[0]).dataobj)
    rng = np.random.default_rng([seed, *case.id.encode()])
    hot = np.stack([reference == value for value in range(3)]).astype(np.float32)
    smooth = np.stack([ndimage.gaussian_filter(one, blur, mode="nearest") for one in hot])
    noisy = np.log(smooth + 1e-3)
    for one in noisy[1:]:
        one += ndimage.gaussian_filter(rng.normal(0.0, 3.0, one.shape), 1.5)
    found = np.exp(noisy - noisy.max(axis=0))
    return np.asarray(found / found.sum(axis=0), dtype=np.float32)


def write_nnunet_case(
    folder: Path,
    case: Case,
    maps: NDArray[np.float32],
    mask: NDArray[Any] | None = None,
    turned: bool = False,
) -> None:
    """``x.npz``, ``x.pkl`` and ``x.nii.gz`` as nnU-Net writes them: arrays are (C, z, y, x)."""
    folder.mkdir(parents=True, exist_ok=True)
    image = nib.load(case.images[0])
    stored = maps
    if turned:
        orientation = io_orientation(image.affine)
        apply = nib.orientations.apply_orientation
        stored = np.stack([apply(one, orientation) for one in maps])
    stored = stored.transpose(0, 3, 2, 1).astype(np.float16)
    np.savez_compressed(folder / f"{case.id}.npz", probabilities=stored)
    (folder / f"{case.id}.pkl").write_bytes(pickle.dumps({"spacing": [1.0, 1.0, 1.0]}))
    labels = maps.astype(np.float16).argmax(axis=0) if mask is None else mask
    written = nib.Nifti1Image(labels.astype(np.uint8), image.affine)
    nib.save(written, folder / f"{case.id}.nii.gz")


def write_trainer(
    root: Path, folds: Sequence[Sequence[Case]], plans: dict[str, Any] | None = None
) -> Path:
    """A trainer's folder with a validation of each fold."""
    folder = root / TRAINER
    write_description(folder, plans or PLANS)
    for number, cases in enumerate(folds):
        for case in cases:
            write_nnunet_case(folder / f"fold_{number}/validation", case, probabilities(case))
    return folder


def write_description(folder: Path, plans: dict[str, Any], **described: Any) -> None:
    """``plans.json`` and ``dataset.json`` of nnU-Net."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"labels": LABELS, "file_ending": ".nii.gz", "channel_names": {"0": "MRI"}}
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(content | described), encoding="utf-8")


def deal(manifest: Manifest, count: int = 2) -> list[list[Case]]:
    """The cases of a cohort in so many folds."""
    return [list(manifest.cases[k::count]) for k in range(count)]
