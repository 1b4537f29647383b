"""From a user's images to the files of each case: what ``medsegdiff segment`` does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from monai.transforms import Compose
from torch import nn
from tqdm import tqdm

from medsegdiff.bundle.bundle import Bundle, device_change
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
from medsegdiff.cases.one_by_one import hidden_bars, one_by_one
from medsegdiff.cases.overview import without_paths, write_overview
from medsegdiff.cases.run_record import size_warnings
from medsegdiff.cases.storing import check_store, store_case
from medsegdiff.cases.writer import CaseWriter
from medsegdiff.core.errors import InputError, UsageError, surfacing_input_errors
from medsegdiff.core.quiet import silenced
from medsegdiff.core.storage import Storage
from medsegdiff.core.types import CalibrationUse, Fusion, OutputFormat, Uneven
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.manifest import Case, Fold, load_manifest
from medsegdiff.data.transforms import LoadCased
from medsegdiff.models.diffusion_segmenter import DiffusionSegmenter
from medsegdiff.models.image_diffusion import ImageDiffusion
from medsegdiff.models.precision import resolve
from medsegdiff.segmentation.resampling import resample_by_slabs
from medsegdiff.segmentation.segmented_case import CaseInferer, segment_case
from medsegdiff.writers.segments import Algorithm, segments_of

logger = logging.getLogger(__name__)

N = TypeVar("N", bound=nn.Module)


class CaseSegmenter:
    """Segments cases one after the other; a case that fails does not stop the others.

    ``CaseWriter`` says which cases are left alone, being complete.

    Args:
        bundle: where the network, the labels and the codes come from.
        network: with trained weights, on its device.
        preprocessing: MONAI chain from ``{"case", "image"}`` to the network's input.
        inferer: makes the ensembles.
        output: gets a folder for each case.
        formats: what to write besides the preview and the run's record.
        save_members: write the members' and the anchor's masks too.
        overwrite: do complete cases again.
        expected_mm: for each axis of the network's space, the least and the greatest extent in
            millimetres that the bundle was made for; a case outside gets a warning.
        calibration: ``auto``: calibrate the mean probability if the bundle has a calibration;
            ``off``: never.
        guarantee: level in (0, 1) of the inner and outer masks and the volumes to write, or None.
        uneven: what becomes of a DICOM series whose slices are not evenly spaced.
        channel_series: words that each stand for one DICOM series of a study, which are then the
            channels of one case; with commas. None: each series is a case.
        config: the bundle's configuration that says all this.

    Raises:
        UsageError: too many steps, or a guarantee that cannot be given.
        InputError: the bundle's calibration does not fit it.
    """

    def __init__(
        self,
        bundle: Bundle,
        network: DiffusionSegmenter | ImageDiffusion,
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
    ) -> None:
        self.bundle, self.network = bundle, network.eval()
        self.preprocessing = resample_by_slabs(preprocessing)
        loaders = (one for one in preprocessing.transforms if isinstance(one, LoadCased))
        self.channels = next((loader.channels for loader in loaders), 1)
        self.inferer, self.output, self.formats = inferer, Path(output), tuple(formats)
        self.expected_mm = expected_mm
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
            cases: of the description.
            key: file that shall say which image each case is.
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
            inputs: paths and addresses.
            store: address of the DICOMweb server to store DICOM objects on, or ``origin``.
            key: file that shall say which image each case is.

        Raises:
            UsageError: an address cannot be understood, or nothing could be stored.
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
            cases: what to segment.
            failures: inputs that have failed before, with the reason.
            store: where to store the DICOM objects, as ``check_store`` gave it.

        Returns:
            Failed input or case -> reason; also in ``failures.json`` if there are any. All cases
            together are shown in ``report.html``, which names no path.
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
        with _window_bar(case.id) as progress:
            segmented = segment_case(
                case,
                self.network,
                self.preprocessing,
                self.inferer,
                scaling,
                Storage(self.output),
                progress,
            )
        warnings = size_warnings(segmented.image.shape[1:], segmented.geometry, self.expected_mm)
        further: dict[str, Any] = {"calibration": None, "guarantee": None}
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
        device = next(self.network.parameters()).device
        self.writer.write(case, segmented, wanted, device, warnings, further, guarantee)


def segment(
    inputs: Sequence[str | Path],
    bundle: Bundle,
    output: Path,
    *,
    members: int | None = None,
    steps: int | None = None,
    seed: int | None = None,
    fusion: Fusion | None = None,
    device: str = "auto",
    formats: Sequence[OutputFormat] = ("nifti",),
    save_members: bool = False,
    overwrite: bool = False,
    calibration: CalibrationUse | None = None,
    guarantee: float | None = None,
    uneven: Uneven | None = None,
    channels: str | None = None,
    store: str | None = None,
    key: Path | None = None,
    fold: Fold | None = None,
) -> dict[str, str]:
    """Segment images with a bundle's model and write the files of each case.

    Args:
        inputs: NIfTI or DICOM files, folders or zips of such, or addresses of DICOMweb studies.
        bundle: whose ``configs/inference`` says how.
        output: gets a folder for each case.
        members: masks drawn for each case; None here and below: what the bundle recommends.
        steps: denoiser evaluations a mask.
        seed: the same seed gives the same masks.
        fusion: how the members become one mask.
        device: ``auto``, or a torch device.
        formats: files to write.
        save_members: write the members' and the anchor's masks too.
        overwrite: do complete cases again.
        calibration: whether to apply the bundle's.
        guarantee: level of the inner and outer masks and the volumes, in (0, 1).
        uneven: what becomes of a DICOM series whose slices are not evenly spaced.
        channels: words, with commas, for the series of a DICOM study that are a case's channels.
        store: address of the DICOMweb server to store DICOM objects on; ``origin``: each case's.
        key: file that shall say which image each case is; None: no file says it.
        fold: ``inputs`` is then one data set, of which the cases of this fold, of the test, or
            all are segmented, by their names there.

    Returns:
        Failed input or case -> reason.

    Raises:
        InputError: the bundle cannot be used, or the key not be written.
        UsageError: the device cannot, the steps are too many, the guarantee cannot be given, or
            nothing could be stored.
    """
    cases: Sequence[Case] = ()
    if fold is None:  # checked before the network is loaded
        check_store(store, formats, parse_inputs(inputs))
    else:
        if store is not None or len(inputs) != 1:
            rule = "takes one data set, and stores nothing on a server"
            raise UsageError("--fold", rule, "Give one DATA, and leave out --store")
        cases = load_manifest(inputs[0]).held_out(fold)
    chosen: dict[str, Any] = {"members": members, "steps": steps, "seed": seed, "fusion": fusion}
    chosen |= {"calibration": calibration, "guarantee": guarantee}
    chosen |= {"uneven": uneven, "channel_series": channels}
    changes: dict[str, Any] = {
        "output_dir": str(output),
        "formats": list(formats),
        "save_members": save_members,
        "overwrite": overwrite,
        **{name: value for name, value in chosen.items() if value is not None},
    }
    parser = bundle.parser("inference", {**changes, **device_change(device)})
    with surfacing_input_errors():
        segmenter: CaseSegmenter = parser.get_parsed_content("segmenter")
    if fold is not None:
        return segmenter.segment_cases(cases, key)
    return segmenter.segment_inputs(inputs, store, key)


@contextmanager
def _window_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Within, shows how far a case of several windows is."""
    with tqdm(desc=name, unit="window", leave=False, disable=hidden_bars(), delay=1.0) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
