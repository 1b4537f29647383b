"""One model of the app: a request of the viewer becomes one of the worker."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from fastapi import HTTPException
from kept_process import KeptProcess
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

Request = Mapping[str, Any]

SETTINGS = {"members": int, "steps": int, "seed": int, "device": str}
TOLD = ("volume_ml", "unit", "present", "unlike_training", "review", "warnings", "places")


class EnsembleTask(InferTask):
    """Gives the mask of an ensemble, or the variance of its probability, of the whole image.

    Args:
        worker: Process that segments (:class:`kept_process.KeptProcess`).
        bundle: Name, folder or registry address of a bundle.
        described: What the worker says of the bundle.
        settings: Settings of all requests, such as ``members``.
        shown: ``seg``, or ``variance``.
    """

    type = InferType.SEGMENTATION

    def __init__(
        self,
        worker: KeptProcess,
        bundle: str,
        described: Mapping[str, Any],
        settings: Mapping[str, Any],
        shown: str = "seg",
    ) -> None:
        super().__init__(
            type=self.type if shown == "seg" else InferType.OTHERS,
            labels=described["labels"],
            dimension=3,
            description=described["task"] + ("" if shown == "seg" else ": variance"),
            config=dict(settings),
        )
        self.worker, self.bundle, self.shown = worker, bundle, shown
        self.in_files = described["in_files"]

    def is_valid(self) -> bool:
        """Whether it can be asked: yes, since the worker has described the bundle."""
        return True

    def voxels(self, request: Request) -> list[list[int]]:
        """Voxels of the request around which to segment; none: wherever the bundle finds it."""
        return []

    def __call__(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Files of MONAI Label's request: path of an image of its own, and what is known of it."""
        asked = {**self.config(), **request}
        given = {key: asked[key] for key in SETTINGS if asked.get(key) not in (None, "")}
        settings = {key: SETTINGS[key](value) for key, value in given.items()}
        voxels = self.voxels(request)
        folder = self.worker.segmented(str(request["image"]), self.bundle, settings, voxels)
        (record,) = folder.glob("*_run.json")
        said = json.loads(record.read_text(encoding="utf-8"))
        told = {key: said[key] for key in TOLD if said.get(key) is not None}
        # MONAI Label deletes the file after it has sent it
        with tempfile.NamedTemporaryFile(suffix=".nii.gz", delete=False) as sent:
            labels = self.write(folder, request, sent.name)
        return sent.name, {"label_names": labels, **told}

    def write(self, folder: Path, request: Request, path: str) -> dict[str, int]:
        """Write the image that is asked for; gives the labels in it, name -> value."""
        if self.shown == "seg":
            (mask,) = folder.glob("*_seg.nii.gz")
            shutil.copyfile(mask, path)
            return self.labels
        name = request.get("label")
        in_files = self.in_files[name if name in self.labels else next(iter(self.labels))]
        (variance,) = folder.glob(f"*_variance_{in_files}.nii.gz")
        shutil.copyfile(variance, path)
        return {}


class PointTask(EnsembleTask):
    """Gives the mask around the points that were clicked on, for viewers that send points."""

    type = InferType.DEEPGROW

    def voxels(self, request: Request) -> list[list[int]]:
        """Voxels that were clicked on as foreground; those of the background are not used."""
        points = request.get("foreground") or []
        if not points:
            rule = "no point was given: click on the structure"
            raise HTTPException(422, rule)
        return points

    def write(self, folder: Path, request: Request, path: str) -> dict[str, int]:
        """Write the class of the active segment, or all where it is none of the bundle's, as 1."""
        (mask,) = folder.glob("*_seg.nii.gz")
        image = nib.load(mask)
        values, name = np.asanyarray(image.dataobj), request.get("label")
        chosen = values == self.labels[name] if name in self.labels else values > 0
        nib.save(nib.Nifti1Image(chosen.astype(np.uint8), None, image.header), path)
        return {name or "structure": 1}
