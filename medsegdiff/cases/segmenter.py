"""Segmentation of cases, one after the other, with the network and settings of a bundle."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from monai.transforms import Compose

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.calibration.application import chosen_calibration
from medsegdiff.cases.case_entries import case_entries
from medsegdiff.cases.cohort_table import write_cohort_table
from medsegdiff.cases.inputs import DicomOptions, described_cases, found_cases, parse_inputs
from medsegdiff.cases.key import write_key
from medsegdiff.cases.one_by_one import Outcome, attempted, one_by_one
from medsegdiff.cases.output_formats import check_installed
from medsegdiff.cases.overview import complete_cases, without_paths, write_overview
from medsegdiff.cases.placing import Placing, segment_placed
from medsegdiff.cases.run_record import size_warnings
from medsegdiff.cases.storing import check_store, store_case
from medsegdiff.cases.way import ALONE, Way
from medsegdiff.cases.writer import CaseWriter
from medsegdiff.core.atomic_files import read_json
from medsegdiff.core.errors import InputError
from medsegdiff.core.folder_lock import folder_lock
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
        InputError: the bundle's calibration does not fit its weights or configuration, its labels
            not its network, or the package of a format is not installed.
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
        check_installed(formats)
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

    def segment_cases(
        self, cases: Sequence[Case], key: Path | None = None, way: Way = ALONE
    ) -> dict[str, str]:
        """Segment the cases of a data set description; see ``run``.

        Args:
            cases: Cases of the description.
            key: Path of a table to write that says which image each case is.
            way: Choice of the cases that are done, and of where.
        """
        found, failures = described_cases(cases, self.dicom_options)
        if key is not None:
            write_key(key, found)
        return self.run(found, failures, None, way)

    @silenced()
    def segment_inputs(
        self,
        inputs: Sequence[str | Path],
        store: str | None = None,
        key: Path | None = None,
        way: Way = ALONE,
    ) -> dict[str, str]:
        """Segment files, folders, zips, and studies of DICOMweb servers; see ``run``.

        Args:
            inputs: Paths and addresses.
            store: Address of the DICOMweb server to store DICOM objects on, or ``origin``.
            key: Path of a table to write that says which image each case is.
            way: Choice of the cases that are done, and of where.

        Raises:
            UsageError: an address cannot be understood, or there would be nothing to store.
            InputError: the key cannot be written, or a package is missing.
        """
        parsed = parse_inputs(inputs)
        target = check_store(store, self.formats, parsed)
        names = self.bundle.channels if self.channels > 1 else ()
        found = found_cases(parsed, self.output, self.dicom_options, self.channels, names)
        with found as (cases, failures):
            if key is not None:
                write_key(key, cases)
            return self.run(cases, failures, target, way)

    @silenced()
    def run(
        self,
        cases: Sequence[CaseInput],
        failures: Mapping[str, InputError] | None = None,
        store: str | None = None,
        way: Way = ALONE,
    ) -> dict[str, str]:
        """Segment all cases, or the part of them that ``way`` says.

        Args:
            cases: Cases to segment.
            failures: Inputs that failed before -> the reason.
            store: Server to store the DICOM objects on, as returned by ``check_store``.
            way: Choice of the cases that are done, and of where.

        Returns:
            Failed input or case -> reason; also written to ``failures.json`` if there are any. The
            page ``report.html`` and the table ``cohort.csv`` have all cases, and no path; those of
            all parts that have ended, if there are parts.
        """
        cases = way.part(cases) if way.part else cases
        errors = one_by_one(
            cases,
            failures or {},
            self.output,
            self.segment,
            "segment",
            engine=lambda some, do: self._stored(way.engine(some, do), store),
            tell=way.tell,
            shared=way.part is not None,
        )
        self._sum_up([case.id for case in cases], errors, shared=way.part is not None)
        return {name: str(error) for name, error in errors.items()}

    def _sum_up(self, ids: Sequence[str], errors: Mapping[str, InputError], shared: bool) -> None:
        """Write the page and the table of all cases."""
        with folder_lock(self.output) if shared else nullcontext():
            done = [n for n in (complete_cases(self.output) if shared else ids) if n not in errors]
            records = [read_json(self.output / name / f"{name}_run.json") for name in done]
            told = without_paths(errors, ids)
            if shared:
                told |= dict.fromkeys(self._failed_elsewhere(errors), "see failures.json")
            write_overview(self.output, records, self.settings, self.bundle.labels, told)
            write_cohort_table(self.output, records, told)

    def _failed_elsewhere(self, errors: Mapping[str, InputError]) -> list[str]:
        """The cases of other parts that failed; inputs that failed are the same in all parts."""
        path = self.output / "failures.json"
        return [name for name in (read_json(path) if path.exists() else {}) if name not in errors]

    def _stored(self, outcomes: Iterable[Outcome], store: str | None) -> Iterator[Outcome]:
        """The outcomes, after the objects of cases that went well have been stored."""
        for case, error in outcomes:
            if store and error is None:
                error = attempted(case, partial(self._store, server=store))
            yield case, error

    def _store(self, case: CaseInput, server: str) -> None:
        store_case(case, self.output / case.id, server)

    @silenced()
    def segment(self, case: CaseInput) -> None:
        """Segment one case and write its files, unless they are complete.

        Raises:
            InputError: the case cannot be read, segmented or written.
        """
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
        labels, placed = self.bundle.labels, location is not None
        told = case_entries(self.calibration, segmented, labels, self.settings, wanted, placed)
        further = told.record | {"location": location}
        warnings += told.warnings
        device = next(self.network.parameters()).device
        self.writer.write(case, segmented, wanted, device, warnings, further, told.guarantee)
