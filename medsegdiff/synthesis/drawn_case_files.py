"""The files of drawn cases: NIfTI, a description of the data set, the record, a plot."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.core.atomic_files import read_json, write_json
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.manifest import Manifest
from medsegdiff.synthesis.copies_chart import save_distance_chart
from medsegdiff.synthesis.draw import Pair
from medsegdiff.synthesis.pair_filter import RULES, Verdict
from medsegdiff.writers.nifti import write_nifti

RECORD = "synthesis.json"
CHART = "distances.png"


class SyntheticCases:
    """A folder of drawn cases that grows, and can be taken up again.

    Args:
        folder: Folder of the data set.
        settings: Settings that the drawn and kept cases depend on.
        manifest: Description of the training data.
        spacing: Size of a voxel along each axis, in mm.
        of: Origin of the cases, such as a bundle's name and version.

    Raises:
        InputError: the folder holds something else, or cases of other settings.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        manifest: Manifest,
        spacing: Sequence[float],
        of: str,
    ) -> None:
        self.folder, self.settings, self.manifest = folder, dict(settings), manifest
        self.spacing, self.of = tuple(spacing), of
        before = read_json(folder / RECORD)
        if before is None and (folder / "dataset.json").exists():
            remedy = "Choose another output folder"
            raise InputError(folder, "holds another data set", remedy)
        if before is not None and before["settings"] != self.settings:
            changed = [k for k, v in self.settings.items() if before["settings"].get(k) != v]
            rule = f"holds cases of other settings ({', '.join(changed) or 'further ones'})"
            raise InputError(folder, rule, "Allow to overwrite, or choose another folder")
        self.pairs: list[dict[str, Any]] = before["pairs"] if before else []

    @property
    def kept(self) -> list[str]:
        """Names of the cases, in the order they were drawn."""
        return [row["case"] for row in self.pairs if row["case"]]

    def add(self, number: int, pair: Pair, verdict: Verdict, nearest: str) -> None:
        """Write a pair if it breaks no rule, and note it in any case.

        Args:
            number: Number of the pair.
            pair: Pair as drawn.
            verdict: Result of the filter.
            nearest: Name of the training case that its image is nearest to.
        """
        name = None if verdict.broken else f"synthetic_{number:05d}"
        if name:
            self._write(name, pair)
        row = {"number": number, "case": name, **dataclasses.asdict(verdict), "nearest": nearest}
        self.pairs.append(row)

    def save(self, learned: Mapping[str, Any]) -> dict[str, Any]:
        """Write description and record of all pairs so far; gives the record.

        Args:
            learned: Rules that the filter has learned from the training cases.
        """
        broken = Counter(rule for row in self.pairs for rule in row["broken"])
        content = {
            "settings": self.settings,
            "drawn": len(self.pairs),
            "kept": len(self.kept),
            "dropped": {rule: broken[rule] for rule in RULES},
            **learned,
            "pairs": self.pairs,
        }
        if self.kept:
            write_json(self.folder / "dataset.json", self._described())
        distances = [row["distance"] for row in self.pairs]
        save_distance_chart(
            self.folder / CHART, learned["real_distances"], distances, learned["copy_distance"]
        )
        write_json(self.folder / RECORD, content)
        return content

    def _write(self, name: str, pair: Pair) -> None:
        shape = tuple(pair.label.shape)
        affine = np.diag([*self.spacing, *[1.0] * (4 - len(self.spacing))])
        affine[: len(shape), 3] = -0.5 * (np.array(shape) - 1) * np.array(self.spacing)
        geometry = Geometry(shape, affine)
        image = pair.image.numpy()
        for channel, path in zip(image, self._images(name, len(image)), strict=True):
            write_nifti(self.folder / path, channel, geometry, dtype="float32", description=self.of)
        label = self.folder / "labelsTr" / f"{name}.nii.gz"
        write_nifti(label, pair.label.numpy(), geometry, dtype="uint8", description=self.of)

    def _images(self, name: str, channels: int) -> list[str]:
        if channels == 1:
            return [f"imagesTr/{name}.nii.gz"]
        return [f"imagesTr/{name}_{channel:04d}.nii.gz" for channel in range(channels)]

    def _described(self) -> dict[str, Any]:
        of = self.manifest
        files = {name: self._images(name, len(of.channels)) for name in self.kept}
        return {
            "name": f"{of.name} synthetic",
            "description": "Generated images and masks; nobody was scanned",
            "reference": f"generated by {self.of}, trained on {of.name}: {of.reference}",
            "licence": f"generated from data under {of.licence or 'a licence that is not stated'}",
            "tensorImageSize": f"{of.spatial_dims}D",
            "modality": {str(number): name for number, name in enumerate(of.channels)},
            "labels": {str(value): name for value, name in of.labels.items()},
            "training": [
                {
                    "image": images[0] if len(images) == 1 else images,
                    "label": f"labelsTr/{name}.nii.gz",
                    "patient": name,
                }
                for name, images in files.items()
            ],
        }
