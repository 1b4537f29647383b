"""Adoption of one case: its maps on the grid of its image, calibrated, written with a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, NormalizeIntensity

from medsegdiff.calibration.fitted import Calibration
from medsegdiff.cases.case_entries import case_entries
from medsegdiff.cases.writer import CaseWriter
from medsegdiff.core.atomic_files import digest
from medsegdiff.core.storage import Storage
from medsegdiff.core.types import Geometry
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.manifest import Manifest, class_slug
from medsegdiff.data.transforms import LoadCased, load
from medsegdiff.other_models.adopted_inferer import AdoptedInferer, adopted_settings
from medsegdiff.other_models.case_images import on_grid_of
from medsegdiff.other_models.chosen_classes import Channels, selected
from medsegdiff.other_models.predicted import Maps, Member, OtherModel, PredictedCase, Predictions
from medsegdiff.segmentation.segmented_case import SegmentedCase, case_item, segment_item
from medsegdiff.writers.segments import Algorithm, segments_of

CALIBRATED_UNITS = ("ct",)
"""Names of channels whose intensities mean the same in every image, and are taken as they are."""


class CaseAdopter:
    """Writes the files of one predicted case after the other.

    Args:
        output: Folder for a folder of each case.
        found: Predictions with their cases.
        model: Model that made them, completed by what the calibration says of it.
        labels: Names of the classes by number, background included.
        channels: Maps of the model that each class is made of.
        manifest: Data set of the images; None without one.
        with_images: Whether the cases' files are images; otherwise they are the predictions.
        calibration: Calibration of the model, or None.
        calibration_hash: Hash of the calibration's file, or None.
        files: Arguments of ``CaseWriter`` on the files to write.
    """

    def __init__(
        self,
        output: Path,
        found: Predictions,
        model: OtherModel,
        labels: Mapping[int, str],
        channels: Channels,
        manifest: Manifest | None,
        with_images: bool,
        calibration: Calibration | None,
        calibration_hash: str | None,
        **files: Any,
    ) -> None:
        self.found, self.model, self.labels, self.channels = found, model, labels, channels
        self.manifest, self.with_images, self.calibration = manifest, with_images, calibration
        self.output, self.files = output, files
        members = max(len(case.members) for case in found.cases.values())
        self.shown = {
            "bundle": model.name,
            "bundle_version": "",
            "bundle_hash": model.hash,
            "program": model.program,
            **adopted_settings(members),
            "calibrated": calibration is not None,
            "calibration_hash": calibration_hash,
        }

    def __call__(self, case: CaseInput) -> None:
        """Write the files of a case, unless they are complete.

        Raises:
            InputError: the image or a map cannot be used, their grids differ, or the case exists
                with other predictions or settings.
        """
        predicted = self.found.cases[case.id]
        settings = self._settings(predicted)
        made_by = Algorithm(self.model.name, "unknown")
        segments = segments_of(self.labels)
        writer = CaseWriter(self.output, segments, made_by, settings, **self.files)
        wanted = writer.to_write(case)
        if wanted is None:
            return
        segmented = self._segmented(case, predicted)
        told = case_entries(self.calibration, segmented, self.labels, settings, wanted)
        further = told.record | {"location": None}
        cpu = torch.device("cpu")
        writer.write(case, segmented, wanted, cpu, told.warnings, further, told.guarantee)

    def _settings(self, predicted: PredictedCase) -> dict[str, Any]:
        """All that decides a case's maps, apart from its image."""
        several = len(predicted.members) > 1
        return {
            **self.shown,
            **adopted_settings(len(predicted.members)),
            "prediction_hash": digest(predicted.files),
            "model": {
                "program": self.model.program,
                "identity": self.model.identity,
                "classes": [class_slug(name) for value, name in self.labels.items() if value],
                "channels": {str(value): list(maps) for value, maps in self.channels.items()},
                "network": predicted.network,
                "layout": self.found.layout,
                "variance": "over members" if several else "of the class: p (1 - p)",
            },
        }

    def _segmented(self, case: CaseInput, predicted: PredictedCase) -> SegmentedCase:
        """All maps of a case, on the grid of its image."""
        if self.with_images:
            item = self._loaded(case, predicted)
        else:
            item = _in_place_of_image(*self._first(predicted))
        reads = [partial(self._maps, one, item["geometry"]) for one in predicted.members]
        scaling = self.calibration.scaling if self.calibration else None
        inferer, storage = AdoptedInferer(reads), Storage()
        nothing: Any = None  # no network: the maps are there
        found = segment_item(item, case.id, nothing, Compose([]), inferer, scaling, storage)
        if self.with_images:
            return found
        return replace(found, features=tuple({"ensemble": f["ensemble"]} for f in found.features))

    def _loaded(self, case: CaseInput, predicted: PredictedCase) -> dict[str, Any]:
        """The image with its geometry; mean 0 and deviation 1 where intensities have no unit."""
        if self.manifest is not None:
            dims, names = self.manifest.spatial_dims, self.manifest.channels
        else:
            dims, names = len(self._first(predicted)[1].shape), ("",) * len(case.image)
        item = load(Compose([LoadCased(dims, len(names))]), case_item(case))
        normalise = NormalizeIntensity(channel_wise=True)
        for number, name in enumerate(names):
            if name.lower() not in CALIBRATED_UNITS:
                part = slice(number, number + 1)
                item["image"][part] = normalise(item["image"][part])
        return item

    def _first(self, predicted: PredictedCase) -> tuple[Maps, Geometry]:
        maps, geometry = predicted.members[0].read()
        return selected(maps, self.channels, predicted.files[0]), geometry

    def _maps(self, member: Member, geometry: Geometry) -> Maps:
        """Maps (K, *shape) of the classes by a member, on the image's grid."""
        maps, own = member.read()
        source = member.files[0]
        chosen = selected(maps, self.channels, source)
        return on_grid_of(chosen, own, geometry, source, resample=self.found.resampled)


def _in_place_of_image(maps: Maps, geometry: Geometry) -> dict[str, Any]:
    """The probability of the foreground, where nobody gave the image."""
    meta = {"spatial_shape": geometry.shape}
    note = "no image was given: the preview shows the probability of the foreground in its place"
    return {
        "image": MetaTensor(torch.from_numpy(1.0 - maps[:1]), meta=meta),
        "geometry": replace(geometry, notes=(*geometry.notes, note)),
    }
