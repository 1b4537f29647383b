"""Segmentation of cases, one after the other, with the network and settings of a bundle."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Compose

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.calibration.application import (
    calibration_record,
    calibration_warnings,
    chosen_calibration,
    guarantee_record,
    shift_warnings,
)
from medsegdiff.calibration.fitted import ClassGuarantee
from medsegdiff.cases.inputs import DicomOptions, described_cases, found_cases, parse_inputs
from medsegdiff.cases.key import write_key
from medsegdiff.cases.one_by_one import one_by_one
from medsegdiff.cases.overview import without_paths, write_overview
from medsegdiff.cases.placing import Placing, segment_placed
from medsegdiff.cases.run_record import size_warnings
from medsegdiff.cases.storing import check_store, store_case
from medsegdiff.cases.triaged import triage_of
from medsegdiff.cases.writer import CaseWriter
from medsegdiff.core.errors import InputError
from medsegdiff.core.progress import progress
from medsegdiff.core.quiet import silenced
from medsegdiff.core.storage import Storage
from medsegdiff.core.types import CalibrationUse, OutputFormat, Uneven
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.manifest import Case
from medsegdiff.data.transforms import LoadCased
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from medsegdiff.models.fold_ensemble import FoldEnsemble
from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.models.precision import resolve
from medsegdiff.segmentation.resampling import resample_by_slabs
from medsegdiff.segmentation.segmented_case import CaseInferer
from medsegdiff.writers.segments import Algorithm, segments_of

logger = logging.getLogger(__name__)


class CaseSegmenter:
    """Segments cases one after the other; a case that fails does not stop the others.

    ``CaseWriter`` decides which complete cases are skipped.

    Args:
        bundle: Bundle with the labels, the DICOM codes and the weights.
        network: Network with trained weights, on its device.
        preprocessing: MONAI chain from ``{"case", "image"}`` to the network's input.
        inferer: Inferer that draws the ensembles.
        output: Folder for a folder of each case.
        formats: Formats to write, besides the preview and the record of the run.
        save_members: Whether to write the masks of the members and the anchor, too.
        overwrite: Whether to segment complete cases again.
        expected_mm: Least and greatest extent in millimetres that the bundle was made for, for each
            axis of the network's space; a case outside of them gets a warning, or ``placing`` takes
            care of it.
        calibration: ``auto`` to calibrate the mean probability if the bundle has a calibration;
            ``off`` for none.
        guarantee: Level in (0, 1) of the inner and outer masks and the volumes to write, or None.
        uneven: Treatment of a DICOM series whose slices are not evenly spaced.
        channel_series: Words, separated by commas, that each select one DICOM series of a study;
            these are the channels of one case. With None, each series is a case.
        config: Name of the bundle's configuration that these arguments come from.
        placing: Decision where in a scan to segment; None: everywhere.

    Raises:
        UsageError: there are too many steps, or the guarantee cannot be given.
        InputError: the bundle's calibration does not fit its weights or configuration, or its
            labels not its network.
    """

    def __init__(
        self,
        bundle: Bundle,
        network: DiffusionSegmenter | FoldEnsemble | ImageDiffusion,
        preprocessing: Compose,
        inferer: CaseInferer,
        output: str | Path,
        formats: Sequence[OutputFormat] = ("nifti",),
        save_members: bool = False,
        overwrite: bool = False,
        expected_mm: Sequence[Sequence[float]] = (),
        calibration: CalibrationUse = "auto",
        guarantee: float | None = None,
        uneven: Uneven = "refuse",
        channel_series: str | None = None,
        config: str = "inference",
        placing: Placing | None = None,
    ) -> None:
        classes = getattr(network, "num_classes", len(bundle.labels))
        if sorted(bundle.labels) != list(range(classes)):
            rule = f"names the classes {sorted(bundle.labels)}, but its network has {classes}"
            raise InputError(bundle.root, rule, "Name all in channel_def of configs/metadata.json")
        self.bundle, self.network = bundle, network.eval()
        self.preprocessing = resample_by_slabs(preprocessing)
        loaders = (one for one in preprocessing.transforms if isinstance(one, LoadCased))
        self.channels = next((loader.channels for loader in loaders), 1)
        self.inferer, self.output, self.formats = inferer, Path(output), tuple(formats)
        self.expected_mm, self.placing = expected_mm, placing or Placing(anyway=True)
        self.calibration = chosen_calibration(bundle, calibration, guarantee)
        words = tuple(word.strip() for word in (channel_series or "").split(",") if word.strip())
        self.dicom_options = DicomOptions(uneven, words)
        self.settings = {
            "bundle": bundle.name,
            "bundle_version": str(bundle.metadata.get("version", "")),
            "bundle_hash": bundle.fingerprint(self.calibration is not None, config),
            "precision": resolve(network.precision, next(network.parameters()).device),
            **inferer.settings,
            "uneven": uneven,
            "calibrated": self.calibration is not None,
            **(placing.settings if placing else {}),
        }
        self.writer = CaseWriter(
            self.output,
            segments_of(bundle.labels, bundle.codes),
            Algorithm(bundle.name, str(bundle.metadata.get("version", "unknown"))),
            self.settings,
            formats,
            save_members,
            overwrite,
            guarantee,
        )
        inferer.check(network)

    def segment_cases(self, cases: Sequence[Case], key: Path | None = None) -> dict[str, str]:
        """Segment the cases of a data set description; see ``run``.

        Args:
            cases: Cases of the description.
            key: Path of a table to write that says which image each case is.
        """
        found, failures = described_cases(cases, self.dicom_options)
        if key is not None:
            write_key(key, found)
        return self.run(found, failures)

    @silenced()
    def segment_inputs(
        self,
        inputs: Sequence[str | Path],
        store: str | None = None,
        key: Path | None = None,
    ) -> dict[str, str]:
        """Segment files, folders, zips, and studies of DICOMweb servers; see ``run``.

        Args:
            inputs: Paths and addresses.
            store: Address of the DICOMweb server to store DICOM objects on, or ``origin``.
            key: Path of a table to write that says which image each case is.

        Raises:
            UsageError: an address cannot be understood, or there would be nothing to store.
            InputError: the key cannot be written, or a package is missing.
        """
        parsed = parse_inputs(inputs)
        target = check_store(store, self.formats, parsed)
        found = found_cases(parsed, self.output, self.dicom_options, self.channels)
        with found as (cases, failures):
            if key is not None:
                write_key(key, cases)
            return self.run(cases, failures, target)

    @silenced()
    def run(
        self,
        cases: Sequence[CaseInput],
        failures: Mapping[str, InputError] | None = None,
        store: str | None = None,
    ) -> dict[str, str]:
        """Segment all cases.

        Args:
            cases: Cases to segment.
            failures: Inputs that failed before -> the reason.
            store: Server to store the DICOM objects on, as returned by ``check_store``.

        Returns:
            Failed input or case -> reason; also written to ``failures.json`` if there are any. The
            page ``report.html`` shows all cases and contains no path.
        """

        def do(case: CaseInput) -> None:
            self._segment(case)
            if store:
                store_case(case, self.output / case.id, store)

        errors = one_by_one(cases, failures or {}, self.output, do, "segment")
        failed = {name: str(error) for name, error in errors.items()}
        ids = [case.id for case in cases]
        done = [name for name in ids if name not in failed]
        told = without_paths(errors, ids)
        write_overview(self.output, done, self.settings, self.bundle.labels, told)
        return failed

    def _segment(self, case: CaseInput) -> None:
        wanted = self.writer.to_write(case)
        if wanted is None:
            return
        scaling = self.calibration.scaling if self.calibration else None
        with progress(case.id, "window", brief=True) as show:
            segmented, location = segment_placed(
                case,
                self.network,
                self.preprocessing,
                self.inferer,
                self.placing,
                self.bundle.labels,
                self.expected_mm,
                scaling,
                Storage(self.output),
                show,
            )
        extent = segmented.image.shape[1:]
        expected = self.expected_mm if location is None else ()
        warnings = size_warnings(extent, segmented.geometry, expected)
        further: dict[str, Any] = {"calibration": None, "guarantee": None, "location": location}
        guarantee: dict[str, ClassGuarantee] = {}
        level = wanted.guarantee
        if self.calibration:
            warnings += calibration_warnings(self.calibration, self.settings, level)
            shift = segmented.calibration_shift
            warnings += shift_warnings(self.calibration, shift)
            further["calibration"] = calibration_record(self.calibration, wanted.input_hash, shift)
            if level:
                guarantee = self.calibration.guarantee(level)
                labels = self.bundle.labels
                further["guarantee"] = guarantee_record(
                    segmented.mean, segmented.geometry.voxel_ml, labels, guarantee, level
                )
        told = triage_of(
            self.calibration, segmented, self.bundle.labels, placed=location is not None
        )
        device = next(self.network.parameters()).device
        warnings, further = warnings + told.warnings, further | told.record
        self.writer.write(case, segmented, wanted, device, warnings, further, guarantee)
