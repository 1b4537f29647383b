"""Writes the files and the record of each case, and skips complete cases."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from medsegdiff.calibration.fitted import ClassGuarantee
from medsegdiff.cases.case_files import remove_case, write_case
from medsegdiff.cases.output_formats import check_formats
from medsegdiff.cases.run_record import read_record, run_record
from medsegdiff.core.atomic_files import digest, remove_unfinished, write_json
from medsegdiff.core.peak_memory import peak_memory_mb
from medsegdiff.core.types import OutputFormat
from medsegdiff.data.case_input import CaseInput
from medsegdiff.segmentation.segmented_case import SegmentedCase
from medsegdiff.writers.segments import Algorithm, Segment

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RequestedFiles:
    """The files to write for a case.

    Attributes:
        formats: Formats of the masks and maps.
        save_members: Whether each member's mask is written, too.
        guarantee: Level in (0, 1) of the inner and outer masks; None for no such masks.
        input_hash: SHA-256 of the case's input files.
    """

    formats: tuple[OutputFormat, ...]
    save_members: bool
    guarantee: float | None = None
    input_hash: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> RequestedFiles:
        """The files that exist, according to a complete case's record."""
        level = (record.get("guarantee") or {}).get("level")
        formats = tuple(sorted(record["formats"]))
        return cls(formats, record["save_members"], level, record["input_hash"])

    def with_former(self, former: RequestedFiles) -> RequestedFiles:
        """The requested files together with the former ones, whose formats and members stay."""
        return RequestedFiles(
            tuple(sorted({*self.formats, *former.formats})),
            self.save_members or former.save_members,
            former.guarantee if self.guarantee is None else self.guarantee,
            self.input_hash,
        )


class CaseWriter:
    """Writes files and records of cases that share their settings and segments.

    A case is complete once its ``<case>_run.json`` exists, which is written last. A complete case
    with the same image and settings is skipped, unless further files are requested. A complete
    case with another image or other settings is refused, unless ``overwrite`` is set.

    Args:
        output: Folder for a folder of each case.
        segments: Foreground classes.
        algorithm: Name and version of the model that makes the masks.
        settings: Settings that determine a mask, apart from the image.
        formats: Formats of the masks and maps.
        save_members: Whether to write each member's mask.
        overwrite: Whether to write complete cases again.
        guarantee: Level in (0, 1) of the inner and outer masks, or None.
        preview: Whether to write the preview, too.
    """

    def __init__(
        self,
        output: Path,
        segments: Sequence[Segment],
        algorithm: Algorithm,
        settings: Mapping[str, Any],
        formats: Sequence[OutputFormat] = ("nifti",),
        save_members: bool = False,
        overwrite: bool = False,
        guarantee: float | None = None,
        preview: bool = True,
    ) -> None:
        self.preview = preview
        self.output, self.segments, self.algorithm = output, segments, algorithm
        self.settings, self.overwrite = dict(settings), overwrite
        self.wanted = RequestedFiles(tuple(sorted(formats)), save_members, guarantee)

    def to_write(self, case: CaseInput) -> RequestedFiles | None:
        """The files to write for a case, existing ones included; None if it is complete.

        What a process that was killed left half written in the case's folder is removed.

        Raises:
            InputError: the input does not allow a format, or the case exists with another image or
                other settings.
        """
        check_formats(case, self.wanted.formats)
        remove_unfinished(self.output / case.id)
        wanted = replace(self.wanted, input_hash=digest(case.files))
        record = self._record(case)
        if record.is_file() and not self.overwrite:
            former = RequestedFiles.of(read_record(record, self._of(case, wanted)))
            wanted = wanted.with_former(former)
            if wanted == former:
                logger.info("%s is complete: left as it is", case.id)
                return None
        return wanted

    def write(
        self,
        case: CaseInput,
        found: SegmentedCase,
        wanted: RequestedFiles,
        device: torch.device,
        warnings: Sequence[str] = (),
        further: Mapping[str, Any] | None = None,
        guarantee: Mapping[str, ClassGuarantee] | None = None,
        write_more: Callable[[Path], None] = lambda _: None,
    ) -> None:
        """Write a case's masks and maps, further files, and last the record of all of them.

        A format that could not be written is in the record's warnings, and then raised: the others
        are there.

        Args:
            case: Case with its name and input files.
            found: Segmented case with its masks and maps.
            wanted: Files to write, as returned by ``to_write``.
            device: Device that the network ran on.
            warnings: Warnings for the log and the record, besides those of the geometry.
            further: Further entries of the record.
            guarantee: Guarantee of each class (by its name in file names), from which its inner and
                outer mask are made.
            write_more: Function that writes other files to the case's folder.

        Raises:
            InputError: a format could not be written.
        """
        started = time.perf_counter()
        folder = self.output / case.id
        warnings = [*found.geometry.notes, *warnings]
        remove_case(case.id, folder)
        written = write_case(
            found,
            case.id,
            folder,
            self.segments,
            self.algorithm,
            wanted.formats,
            wanted.save_members,
            guarantee or {},
            self.preview,
        )
        write_more(folder)
        warnings += written.notes
        for warning in warnings:
            logger.warning("%s: %s", case.id, warning)
        labels = {one.value: one.name for one in self.segments}
        content = run_record(found, case, labels) | self._of(case, wanted)
        content |= {"formats": sorted(written.formats), "save_members": wanted.save_members}
        content |= dict(further or {}) | {"warnings": warnings, "device": str(device)}
        content["seconds"]["write"] = time.perf_counter() - started
        content["seconds"]["total"] = sum(content["seconds"].values())
        content["peak_memory_mb"] = peak_memory_mb()
        write_json(self._record(case), content)
        if written.failure:
            raise written.failure

    def _record(self, case: CaseInput) -> Path:
        return self.output / case.id / f"{case.id}_run.json"

    def _of(self, case: CaseInput, wanted: RequestedFiles) -> dict[str, Any]:
        """Settings, hash of the input and its spacing, which together determine a case's masks."""
        spacing = list(case.spacing) or None
        return self.settings | {"input_hash": wanted.input_hash, "pixel_spacing": spacing}
