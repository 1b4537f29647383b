"""The job of ``medsegdiff counterfactual``: healthy counterfactuals and maps of the differences."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from numpy.typing import NDArray
from torch import Tensor

from medsegdiff.bundle.bundle import Bundle, device_change, load_bundle
from medsegdiff.calibration.scaling import Scaling, fit_scaling
from medsegdiff.cases.inputs import found_cases, parse_inputs
from medsegdiff.cases.one_by_one import one_by_one
from medsegdiff.cases.writer import CaseWriter
from medsegdiff.core.atomic_files import digest, read_json, write_json
from medsegdiff.core.errors import InputError, surfacing_input_errors
from medsegdiff.core.quiet import silenced
from medsegdiff.core.types import CalibrationUse, Geometry, OutputFormat
from medsegdiff.counterfactual.healthy_image import Counterfactual, CounterfactualMaps
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.manifest import datalist, load_manifest
from medsegdiff.data.transforms import load, restore
from medsegdiff.segmentation.ensemble import predictive_entropy
from medsegdiff.segmentation.segmented_case import SegmentedCase
from medsegdiff.writers.nifti import write_nifti
from medsegdiff.writers.segments import Algorithm, segments_of

CALIBRATION = "models/difference.json"
FITTED_WITH = ("level", "steps", "guidance", "encoding")
LEAST = 1e-6
"""Lower limit of a difference, so that its logarithm is finite."""
PLANES_AT_ONCE = 32


class CounterfactualMaker:
    """Makes the counterfactuals of cases, one after the other.

    Args:
        bundle: Bundle of the network; its one foreground class is the lesion.
        counterfactual: Settings of the counterfactuals, with the network.
        preprocessing: MONAI chain from ``{"case", "image"}`` to the network's input.
        output: Folder for a folder of each case.
        calibration: ``auto`` for probabilities by the bundle's calibration of differences, if it
            has one for these weights and settings; ``off`` for none.
        formats: Formats of mask and probability.
        overwrite: Whether to process complete cases again.
    """

    def __init__(
        self,
        bundle: Bundle,
        counterfactual: Counterfactual,
        preprocessing: Compose,
        output: str | Path,
        calibration: CalibrationUse = "auto",
        formats: Sequence[OutputFormat] = ("nifti",),
        overwrite: bool = False,
    ) -> None:
        self.bundle, self.make, self.preprocessing = bundle, counterfactual, preprocessing
        self.output = Path(output)
        settings: dict[str, Any] = {
            "bundle": bundle.name,
            "bundle_version": str(bundle.metadata.get("version", "")),
            "bundle_hash": digest([bundle.config("counterfactual"), bundle.weights()]),
            "level": counterfactual.level,
            "steps": counterfactual.steps,
            "guidance": counterfactual.guidance,
            "encoding": counterfactual.encoding,
            "draws": counterfactual.draws,
            "seed": counterfactual.seed,
        }
        self.scaling = read_scaling(bundle, settings) if calibration == "auto" else None
        settings["calibrated"] = self.scaling is not None
        version = str(bundle.metadata.get("version", "unknown"))
        self.writer = CaseWriter(
            self.output,
            segments_of(bundle.labels, bundle.codes),
            Algorithm(bundle.name, version),
            settings,
            formats,
            overwrite=overwrite,
        )

    @silenced()
    def run(self, inputs: Sequence[str | Path]) -> dict[str, str]:
        """Make the counterfactuals of files, folders and zips.

        Returns:
            Failed input or case -> reason.
        """
        with found_cases(parse_inputs(inputs), self.output) as (cases, failed):
            errors = one_by_one(cases, failed, self.output, self._one, "counterfactual")
        return {name: str(error) for name, error in errors.items()}

    def _one(self, case: CaseInput) -> None:
        wanted = self.writer.to_write(case)
        if wanted is None:
            return
        started = time.perf_counter()
        item = load(self.preprocessing, {"case": case.id, "image": list(case.image)})
        image, geometry = item["image"], item["geometry"]
        loaded = time.perf_counter()
        maps = self.maps(torch.as_tensor(image.as_tensor()), case.id)
        back = [self._back(one, image) for one in (maps.healthy, maps.difference, maps.variance)]
        healthy, difference, variance = back[0], back[1][0].clip(0.0), back[2][0].clip(0.0)
        probability = probabilities(difference, self.scaling)
        found = SegmentedCase(
            geometry=geometry,
            image=self._back(torch.as_tensor(image.as_tensor()), image),
            mask=(probability[1] > 0.5).astype(np.uint8),
            mean=probability,
            variance=self._variance(difference, variance),
            entropy=predictive_entropy(torch.from_numpy(probability)).numpy(),
            anchor=None,
            members=(probability[1:] > 0.5).astype(np.uint8),
            seconds={"load": loaded - started, "sample": time.perf_counter() - loaded},
            windows={"run": 1, "skipped": 0},
        )
        further = {
            "difference": {
                "mean": float(difference.mean()),
                "percentile_95": float(np.percentile(difference, 95)),
                "greatest": float(difference.max()),
            }
        }
        warnings = [] if self.scaling else ["the probability is not calibrated: compare, only"]

        def write_maps(folder: Path) -> None:
            self._write(case.id, folder, geometry, healthy, difference)

        self.writer.write(
            case, found, wanted, self.device, warnings, further, write_more=write_maps
        )

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.make.network.parameters()).device

    def maps(self, image: Tensor, case: str) -> CounterfactualMaps:
        """Maps of an image (C, *spatial); a 2D network processes a volume plane by plane."""
        image = image.to(self.device)
        axes = max(weight.ndim for weight in self.make.network.parameters()) - 2
        if image.ndim - 1 == axes:
            return self.make(image, case)
        planes = image.movedim(-1, 0)
        found: list[CounterfactualMaps] = []
        for first in range(0, len(planes), PLANES_AT_ONCE):
            some = planes[first : first + PLANES_AT_ONCE]
            names = [f"{case}/{first + n}" for n in range(len(some))]
            found += self.make.several(some, names)
        stacked = (torch.stack(one, dim=-1) for one in zip(*map(_parts, found), strict=True))
        return CounterfactualMaps(*stacked)

    def _back(self, maps: Tensor, image: MetaTensor) -> NDArray[np.float32]:
        """(C, *spatial) or (*spatial) -> (C, *shape) on the input's grid."""
        channels = maps if maps.ndim == image.ndim else maps[None]
        return restore(channels.cpu(), image, self.preprocessing)

    def _variance(
        self, difference: NDArray[np.float32], variance: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(2, *shape) variance of the probability over draws, from that of the difference."""
        spread = np.sqrt(variance)
        high, low = (
            probabilities(np.maximum(difference + s * spread, 0.0), self.scaling)[1]
            for s in (1.0, -1.0)
        )
        one = ((high - low) / 2.0) ** 2
        return np.stack([one, one]).astype(np.float32).clip(0.0, 0.25)

    def _write(
        self,
        case: str,
        folder: Path,
        geometry: Geometry,
        healthy: NDArray[np.float32],
        difference: NDArray[np.float32],
    ) -> None:
        maps = {"difference": (difference, "difference to the counterfactual, in deviations")}
        for channel, values in enumerate(healthy):
            name = "counterfactual" if len(healthy) == 1 else f"counterfactual_{channel}"
            maps[name] = (values, "as it would look healthy, standardised")
        for name, (values, text) in maps.items():
            path = folder / f"{case}_{name}.nii.gz"
            write_nifti(path, values, geometry, dtype="float32", description=text)


def _parts(maps: CounterfactualMaps) -> tuple[Tensor, Tensor, Tensor]:
    return maps.healthy, maps.difference, maps.variance


def probabilities(difference: NDArray[np.float32], scaling: Scaling | None) -> NDArray[np.float32]:
    """(2, *shape) probabilities of no lesion and of a lesion, from differences (*shape).

    The odds of a lesion are the difference itself. The calibration scales the logarithms of both
    probabilities and shifts one of them, which keeps the order of voxels.
    """
    odds = np.maximum(difference, LEAST)
    lesion = odds / (1.0 + odds)
    both = np.stack([1.0 - lesion, lesion]).astype(np.float32)
    return both if scaling is None else scaling(both)


def fit_differences(
    differences: Sequence[NDArray[np.float32]], lesions: Sequence[NDArray[np.bool_]]
) -> Scaling:
    """Fit the calibration of differences to all voxels of all cases.

    Args:
        differences: Differences (*shape) of each case.
        lesions: Lesion mask (*shape) of each case.

    Raises:
        InputError: there is no voxel with a lesion, or none without.
    """
    flat = np.concatenate([one.ravel() for one in differences])
    there = np.concatenate([one.ravel() for one in lesions])
    if there.all() or not there.any():
        rule = "needs voxels with a lesion and without"
        raise InputError("the calibration", rule, "Give healthy and diseased cases")
    share = np.stack([~there, there]).astype(np.float64)
    both = probabilities(flat, None).astype(np.float64)
    return fit_scaling(both, share, np.ones(len(flat)))


def read_scaling(bundle: Bundle, settings: Mapping[str, Any]) -> Scaling | None:
    """The bundle's calibration of differences, if it was fitted to these weights and settings."""
    content = read_json(bundle.root / CALIBRATION)
    if content is None or content["fitted_with"] != _decisive(bundle, settings):
        return None
    return Scaling(tuple(content["temperature"]), tuple(content["bias"]))


def _decisive(bundle: Bundle, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that determine the differences, apart from the seed."""
    return {name: settings[name] for name in FITTED_WITH} | {"weights": bundle.weights_hash()}


def calibrate_differences(maker: CounterfactualMaker, data: str | Path, fold: int) -> Path:
    """Fit the calibration to the labelled cases of a held-out fold, and store it.

    Args:
        maker: Maker whose bundle gets the calibration.
        data: Description of the data, or a known name; a voxel that any rater marked is a lesion.
        fold: Number of the fold whose cases are used.

    Raises:
        InputError: the data cannot be used.
    """
    cases = load_manifest(data).split(fold)[1]
    differences: list[NDArray[np.float32]] = []
    lesions: list[NDArray[np.bool_]] = []
    for item in datalist(cases):
        loaded = load(maker.preprocessing, item)
        image = torch.as_tensor(loaded["image"].as_tensor())
        maps = maker.maps(image, str(item["case"]))
        differences.append(maps.difference.cpu().numpy())
        lesions.append(np.asarray(np.any(np.asarray(loaded["label"]) > 0, axis=0)))
    scaling = fit_differences(differences, lesions)
    path = maker.bundle.root / CALIBRATION
    content = {
        "temperature": list(scaling.temperature),
        "bias": list(scaling.bias),
        "n": len(differences),
        "fitted_with": _decisive(maker.bundle, maker.writer.settings),
    }
    write_json(path, content)
    return path


def counterfactual(
    inputs: Sequence[str | Path],
    bundle: str | Path | Bundle,
    output: str | Path,
    *,
    calibrate: str | Path | None = None,
    device: str = "auto",
    **settings: Any,
) -> dict[str, str]:
    """Make healthy counterfactuals of images, and map where the images differ from them.

    Args:
        inputs: NIfTI or DICOM files, folders or zips of such.
        bundle: Name, path or bundle with the configuration ``configs/counterfactual``.
        output: Folder for a folder of each case.
        calibrate: Data whose held-out fold the bundle's calibration is fitted to first.
        device: Name of a torch device, or ``auto``.
        settings: Keys of the configuration -> values, such as ``level=0.5``.

    Returns:
        Failed input or case -> reason.

    Raises:
        InputError: the bundle or the data cannot be used.
        UsageError: the device cannot be used, or a setting is unknown.
    """
    found = load_bundle(bundle)
    changes = {**settings, "output_dir": str(output), **device_change(device)}
    if calibrate:
        changes["raters"] = load_manifest(calibrate).raters
    parser = found.parser("counterfactual", changes)
    with surfacing_input_errors():
        maker = cast(CounterfactualMaker, parser.get_parsed_content("maker"))
        if calibrate:
            calibrate_differences(maker, calibrate, int(parser.get_parsed_content("fold")))
            maker.scaling = read_scaling(found, maker.writer.settings)
            maker.writer.settings["calibrated"] = maker.scaling is not None
    return maker.run(inputs)
