"""nnU-Net v2's predictions (github.com/MIC-DKFZ/nnUNet, nnunetv2/inference/export_prediction.py).

A trainer's folder ``TRAINER__PLANS__CONFIGURATION`` has ``fold_0/validation`` and so on, each with
the cases that its network did not see (training with ``--npz``). A flat folder is what
``nnUNetv2_predict --save_probabilities`` leaves. In both a case is ``x.npz`` with ``probabilities``
(C, z, y, x) and ``x.nii.gz``, the mask that follows from them, on whose grid they lie.
``plans.json`` and ``dataset.json`` say which model it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.images import read_image
from medsegdiff.other_models.array_files import read_probabilities
from medsegdiff.other_models.predicted import (
    Known,
    Maps,
    Member,
    OtherModel,
    PredictedCase,
    Predictions,
    json_digest,
)
from medsegdiff.other_models.probability_maps import in_unit_range, summing_to_one
from medsegdiff.other_models.region_classes import (
    classes_of_regions,
    is_nested,
    mask_of_regions,
)

PROGRAM = "nnU-Net"
SAVE = "Predict with --save_probabilities, or validate with: nnUNetv2_train ... --val --npz"
AGREEMENT = 0.99
"""Share of the marked voxels in which mask and probabilities must agree; they differ in ties."""

_REORIENTS = "NibabelIOWithReorient", "SimpleITKIOWithReorient"
"""nnU-Net's readers that turn an image to RAS, and save its probabilities so."""


@dataclass(frozen=True)
class Heads:
    """What the channels of nnU-Net's probabilities are.

    Attributes:
        labels: Label of each channel; of regions the labels in it.
        names: Name of each channel.
        order: Label that each region gives to its voxels; empty without regions.
        turned: Whether the maps were turned to RAS.
    """

    labels: tuple[frozenset[int], ...]
    names: tuple[str, ...]
    order: tuple[int, ...]
    turned: bool

    @property
    def values(self) -> list[int]:
        """Labels of the classes, ascending, with the background."""
        return sorted({0, *(self.order or (next(iter(one)) for one in self.labels))})

    @property
    def classes(self) -> tuple[str | None, ...]:
        """Name of each class, background first; None for one that is a part of a region."""
        if not self.order:
            return self.names
        alone = {
            next(iter(r)): n for r, n in zip(self.labels, self.names, strict=True) if len(r) == 1
        }
        return tuple("background" if value == 0 else alone.get(value) for value in self.values)


def recognises(folder: Path) -> bool:
    """Whether it is a trainer's folder, the validation of one fold, or a folder of predictions."""
    place = _described_in(folder)
    return place is not None and bool(_folds(folder) or folder != place or any(_cases(folder)))


def find(folder: Path, known: Known) -> Predictions:
    """The predictions in a folder.

    Args:
        folder: Folder of a trainer, of a fold's ``validation``, or of predictions.
        known: Facts that are known of them; ``model`` may name a flat folder's trainer.

    Raises:
        InputError: the descriptions cannot be used, or no case has probabilities.
    """
    place = _described_in(folder) or folder
    described, plans = _read(place / "dataset.json"), _read(place / "plans.json")
    heads = heads_of(described, plans, place / "dataset.json")
    ending = str(described.get("file_ending", ".nii.gz"))
    in_folds = _folds(folder) or ({folder.parent.name: folder} if folder != place else {})
    cases: dict[str, PredictedCase] = {}
    failures: dict[str, InputError] = {}
    for fold, inner in in_folds.items() or [(None, folder)]:
        masks = {file.name.removesuffix(ending) for file in inner.glob(f"*{ending}")}
        for name in sorted(masks | set(_cases(inner))):
            try:
                cases[name] = _case(inner, name, ending, heads, fold)
            except InputError as error:
                failures[name] = error
    if not cases:
        raise InputError(folder, "has no case with probabilities (x.npz beside x.nii.gz)", SAVE)
    trainer = place.name if in_folds else known.model
    model = _model(described, plans, heads, trainer)
    found = f"{len(in_folds)} folds' validation" if in_folds else "predictions"
    return Predictions(f"{PROGRAM} ({found})", model, cases, failures, _notes(trainer, heads))


def heads_of(described: dict[str, Any], plans: dict[str, Any], source: Path) -> Heads:
    """The channels that ``dataset.json`` describes, in the order of nnU-Net's label manager.

    Args:
        described: Content of ``dataset.json``.
        plans: Content of ``plans.json``.
        source: Path of ``dataset.json``, for messages.

    Raises:
        InputError: the labels cannot be used, or regions overlap without one holding the other.
    """
    remedy = "Restore the dataset.json that nnU-Net copied"
    labels: Any = described.get("labels")
    try:
        sets = {
            str(name): frozenset(map(int, value if isinstance(value, list) else [value]))
            for name, value in labels.items()
            if name != "ignore"
        }
    except (AttributeError, TypeError, ValueError):
        raise InputError(source, "'labels' cannot be read", remedy) from None
    turned = str(plans.get("image_reader_writer")) in _REORIENTS
    if all(len(one) == 1 for one in sets.values()):
        ordered = sorted(sets, key=lambda name: min(sets[name]))
        return Heads(tuple(sets[n] for n in ordered), tuple(ordered), (), turned)
    regions = {name: one for name, one in sets.items() if one != {0}}
    order = described.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(regions):
        rule = f"'regions_class_order' must have one label for each of {len(regions)} regions"
        raise InputError(source, rule, remedy)
    if not is_nested(list(regions.values())):
        rule = "has regions that overlap without one holding the other"
        raise InputError(
            source, rule, "Such regions are no classes of a label map: they cannot be used"
        )
    return Heads(tuple(regions.values()), tuple(regions), tuple(map(int, order)), turned)


def _described_in(folder: Path) -> Path | None:
    """The folder with ``plans.json`` and ``dataset.json``: itself, or the trainer's above it."""
    places = [folder, folder.parent.parent] if folder.name == "validation" else [folder]
    needed = ("plans.json", "dataset.json")
    return next((p for p in places if all((p / name).is_file() for name in needed)), None)


def _folds(folder: Path) -> dict[str, Path]:
    return {
        one.parent.name: one for one in sorted(folder.glob("fold_*/validation")) if one.is_dir()
    }


def _cases(folder: Path) -> Iterable[str]:
    """Names of the cases that have a probability file, or properties that belong to one."""
    return sorted({file.stem for kind in ("*.npz", "*.pkl") for file in folder.glob(kind)})


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        rule = f"cannot be read as JSON ({type(error).__name__})"
        raise InputError(path, rule, "Copy it again from nnU-Net's folder") from None
    if not isinstance(content, dict):
        raise InputError(path, "must hold a JSON object", "Copy it again from nnU-Net's folder")
    return content


def _model(
    described: dict[str, Any], plans: dict[str, Any], heads: Heads, trainer: str | None
) -> OtherModel:
    labels = {key: described.get(key) for key in ("labels", "regions_class_order")}
    identity = {
        "program": PROGRAM,
        "plans": json_digest({k: v for k, v in plans.items() if k != "continue_training"}),
        "labels": json_digest(labels),
        "trainer": trainer,
    }
    name = f"{plans.get('dataset_name', 'unnamed')}/{trainer or 'unknown trainer'}"
    return OtherModel(PROGRAM, name, identity, heads.classes)


def _notes(trainer: str | None, heads: Heads) -> tuple[str, ...]:
    notes = []
    if trainer is None:
        notes.append(
            "the folder does not say by which trainer and configuration it was predicted: name "
            "them with --model, such as nnUNetTrainer__nnUNetPlans__3d_fullres"
        )
    if heads.order:
        notes.append("the probabilities of regions were turned into those of the labels")
    return tuple(notes)


def _case(folder: Path, name: str, ending: str, heads: Heads, network: str | None) -> PredictedCase:
    maps, mask = folder / f"{name}.npz", folder / f"{name}{ending}"
    if not maps.is_file():
        raise InputError(maps, "is missing: the case has no probabilities", SAVE)
    if not mask.is_file():
        rule = "is missing beside the probabilities: the case is half written"
        raise InputError(mask, rule, "Predict the case again")
    read = partial(_read_maps, maps, mask, heads)
    return PredictedCase((Member((maps, mask), read),), network)


def _read_maps(path: Path, mask_path: Path, heads: Heads) -> tuple[Maps, Geometry]:
    mask, geometry = read_image(mask_path, label=True)
    maps = _on_grid(read_probabilities(path), geometry, heads, path)
    if heads.order:
        maps = in_unit_range(maps, path)
        written = mask_of_regions(maps, heads.order)
        of_labels = classes_of_regions(maps, heads.labels, heads.order)
        probability = np.stack([of_labels[value] for value in heads.values])
    else:
        probability = summing_to_one(maps, path)
        written = np.array(heads.values)[probability.argmax(axis=0)]
    _check_agreement(written, mask.reshape(written.shape), path, mask_path)
    return probability, geometry


def _on_grid(stored: NDArray[Any], geometry: Geometry, heads: Heads, path: Path) -> NDArray[Any]:
    """Maps (C, z, y, x) as nnU-Net stores them -> (C, *shape) on the grid of the mask."""
    if len(stored) != len(heads.labels):
        rule = f"has {len(stored)} maps, but dataset.json names {len(heads.labels)}"
        raise InputError(
            path, f"{rule} ({', '.join(heads.names)})", "Give the model's own dataset.json"
        )
    if len(geometry.shape) == 2 and stored.ndim == 4 and stored.shape[1] == 1:
        stored = stored[:, 0]
    maps = stored.transpose(0, *range(stored.ndim - 1, 0, -1))
    if heads.turned and maps.ndim == 4:
        back = ornt_transform(axcodes2ornt("RAS"), io_orientation(geometry.affine))
        maps = np.stack([apply_orientation(one, back) for one in maps])
    if maps.shape[1:] != geometry.shape:
        rule = f"has maps of shape {maps.shape[1:]}, but the mask beside it has {geometry.shape}"
        raise InputError(path, rule, "Predict the case again: the two are not of one image")
    return maps


def _check_agreement(
    written: NDArray[Any], mask: NDArray[Any], path: Path, mask_path: Path
) -> None:
    """Refuse a mask that does not follow from the probabilities beside it."""
    marked = (written > 0) | (mask > 0)
    alike = float((written == mask)[marked].mean()) if marked.any() else 1.0
    if alike < AGREEMENT:
        rule = (
            f"gives other labels than {mask_path.name} in {100 * (1 - alike):.0f} % of the marked "
            "voxels: the two are not of one prediction, or the mask was changed afterwards"
        )
        raise InputError(path, rule, "Give the folder as nnU-Net wrote it, before postprocessing")
