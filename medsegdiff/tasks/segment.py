"""From a user's images to the files of each case: what ``medsegdiff segment`` does."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from tqdm import tqdm

from medsegdiff.bundle import Bundle, device_change
from medsegdiff.data.manifest import Case
from medsegdiff.files import read_json, write_json
from medsegdiff.inference.inputs import CaseInput, found_cases
from medsegdiff.inference.segment import segment_case
from medsegdiff.inference.sliding_window import EnsembleInferer
from medsegdiff.model import DiffusionSegmenter
from medsegdiff.tasks.case_files import run_record, write_case
from medsegdiff.tasks.overview import write_overview
from medsegdiff.types import InputError, OutputFormat, surfacing_input_errors

logger = logging.getLogger(__name__)


class CaseSegmenter:
    """Segments cases one after the other; a case that fails does not stop the others.

    A case is complete once its ``<case>_run.json`` is there, which is written last. A complete one
    with the same settings is left alone, one with other settings is a failure unless ``overwrite``.

    Args:
        bundle: where the network, the labels and the codes come from.
        network: with trained weights, on its device.
        preprocessing: MONAI chain from ``{"case", "image"}`` to the network's input.
        inferer: samples the ensembles.
        output: gets a folder for each case.
        formats: what to write besides the preview and the run's record.
        save_members: write the members' and the anchor's masks too.
        overwrite: do complete cases again.
        expected_mm: for each axis of the network's space, the least and the greatest extent in
            millimetres that the bundle was made for; a case outside gets a warning.
    """

    def __init__(
        self,
        bundle: Bundle,
        network: DiffusionSegmenter,
        preprocessing: Compose,
        inferer: EnsembleInferer,
        output: str | Path,
        formats: Sequence[OutputFormat] = ("nifti",),
        save_members: bool = False,
        overwrite: bool = False,
        expected_mm: Sequence[Sequence[float]] = (),
    ) -> None:
        self.bundle, self.network, self.preprocessing = bundle, network.eval(), preprocessing
        self.inferer, self.output, self.formats = inferer, Path(output), tuple(formats)
        self.save_members, self.overwrite, self.expected_mm = save_members, overwrite, expected_mm
        self.settings = {
            "bundle": bundle.name,
            "bundle_version": str(bundle.metadata.get("version", "")),
            "bundle_hash": bundle.fingerprint(),
            "seed": inferer.seed,
            "sampler": inferer.sampler_name,
            "steps": inferer.steps,
            "members": inferer.members,
        }

    def segment_cases(self, cases: Sequence[Case]) -> dict[str, str]:
        """Segment the cases of a data set description; see ``run``."""
        return self.run([CaseInput(case.id, case.images) for case in cases])

    def segment_inputs(self, inputs: Sequence[str | Path]) -> dict[str, str]:
        """Segment files, folders and zips; see ``run``."""
        with found_cases([Path(i) for i in inputs], self.output) as (cases, failures):
            return self.run(cases, failures)

    def run(
        self, cases: Sequence[CaseInput], failures: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Segment all cases.

        Args:
            cases: what to segment.
            failures: inputs that have failed before, with the reason.

        Returns:
            Failed input or case -> reason; also in ``failures.json`` if there are any. All cases
            together are shown in ``report.html``.
        """
        failed = dict(failures or {})
        hidden = not logger.isEnabledFor(logging.INFO) or None  # None: hidden where no terminal is
        for case in tqdm(cases, desc="segment", unit="case", disable=hidden):
            try:
                with surfacing_input_errors():
                    self._segment(case)
            except InputError as error:
                failed[case.id] = str(error)
            except (RuntimeError, MemoryError, OSError) as error:
                logger.debug("%s failed", case.id, exc_info=True)
                failed[case.id] = f"{case.id}: {type(error).__name__}: {error}".split("\n")[0]
        path = self.output / "failures.json"
        if failed:
            write_json(path, failed)
        else:
            path.unlink(missing_ok=True)
        write_overview(self.output, [case.id for case in cases], self.bundle.labels, failed)
        return failed

    def _segment(self, case: CaseInput) -> None:
        folder = self.output / case.id
        record = folder / f"{case.id}_run.json"
        if record.is_file() and not self.overwrite:
            self._check_same_settings(record)
            logger.info("%s is complete: left as it is", case.id)
            return
        record.unlink(missing_ok=True)
        started = time.perf_counter()
        segmented = segment_case(case, self.network, self.preprocessing, self.inferer)
        warnings = size_warnings(segmented.image.shape[1:], segmented.geometry, self.expected_mm)
        for warning in warnings:
            logger.warning("%s: %s", case.id, warning)
        sampled = time.perf_counter()
        write_case(segmented, case.id, folder, self.bundle, self.formats, self.save_members)
        written = time.perf_counter()
        content = run_record(segmented, case, self.bundle.labels)
        content |= self.settings
        content["warnings"] = warnings
        content["device"] = str(next(self.network.parameters()).device)
        content["seconds"] |= {"write": written - sampled, "total": written - started}
        content["peak_memory_mb"] = peak_memory_mb()
        write_json(record, content)

    def _check_same_settings(self, record: Path) -> None:
        before = read_json(record) or {}
        changed = [name for name, value in self.settings.items() if before.get(name) != value]
        if changed:
            raise InputError(
                record,
                f"was made with another {', '.join(changed)}",
                "Add --overwrite, or choose another output folder",
            )


def segment(
    inputs: Sequence[Path],
    bundle: Bundle,
    output: Path,
    *,
    members: int = 16,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    formats: Sequence[OutputFormat] = ("nifti",),
    save_members: bool = False,
    overwrite: bool = False,
) -> dict[str, str]:
    """Segment images with a bundle's model and write the files of each case.

    Args:
        inputs: NIfTI or DICOM files, folders or zips of such.
        bundle: whose ``configs/inference`` says how.
        output: gets a folder for each case.
        members: masks drawn for each case.
        steps: denoiser evaluations a mask; None: what the bundle recommends.
        seed: the same seed gives the same masks.
        device: ``auto``, or a torch device.
        formats: files to write.
        save_members: write the members' and the anchor's masks too.
        overwrite: do complete cases again.

    Returns:
        Failed input or case -> reason.

    Raises:
        InputError: the bundle cannot be used.
        UsageError: the device cannot.
    """
    changes: dict[str, Any] = {
        "output_dir": str(output),
        "members": members,
        "seed": seed,
        "formats": list(formats),
        "save_members": save_members,
        "overwrite": overwrite,
    }
    if steps is not None:
        changes["steps"] = steps
    parser = bundle.parser("inference", {**changes, **device_change(device)})
    with surfacing_input_errors():
        segmenter: CaseSegmenter = parser.get_parsed_content("segmenter")
    return segmenter.segment_inputs(inputs)


def load_network(
    network: DiffusionSegmenter, bundle: Bundle, device: torch.device
) -> DiffusionSegmenter:
    """The network with the bundle's weights, in evaluation mode, channels last.

    Raises:
        InputError: the bundle has no weights, or they do not fit the network.
    """
    path = bundle.weights()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, KeyError, ValueError) as error:
        reason = str(error).strip().split("\n")[-1].strip()
        remedy = "Use weights that were trained with this configuration"
        raise InputError(path, f"does not fit the bundle's network ({reason})", remedy) from error
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    layout = layouts[max(p.ndim for p in network.parameters())]
    network.to(memory_format=layout)  # type: ignore[call-overload]
    return network.to(device).eval()


def size_warnings(
    shape: Sequence[int], geometry: Any, expected_mm: Sequence[Sequence[float]]
) -> list[str]:
    """What is unusual about an image's extent, in words; empty if nothing is.

    Extents and expectations are compared from the smallest to the largest, whatever the axes.
    """
    found = []
    extents = sorted(n * s for n, s in zip(shape, geometry.spacing, strict=True))
    for extent, (low, high) in zip(extents, sorted(map(tuple, expected_mm)), strict=False):
        if not low <= extent <= high:
            found.append(
                f"the image measures {extent:.0f} mm along one axis, this bundle was made for "
                f"{low:.0f} to {high:.0f} mm: crop it around the structure, or distrust the result"
            )
    return found


def peak_memory_mb() -> float:
    """Greatest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024.0 if sys.platform != "darwin" else 1024.0**2), 1)
