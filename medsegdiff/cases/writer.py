"""Case after case: what fails does not stop the others, and each has its files and record."""

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
from medsegdiff.cases.run_record import peak_memory_mb, read_record, run_record
from medsegdiff.core.atomic_files import digest, write_json
from medsegdiff.core.types import OutputFormat
from medsegdiff.data.case_input import CaseInput
from medsegdiff.segmentation.segmented_case import SegmentedCase
from medsegdiff.writers.segments import Algorithm, Segment

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RequestedFiles:
    """What is to be written of a case.

    Attributes:
        formats: of masks and maps.
        save_members: each member's mask too.
        guarantee: level of the inner and outer masks; None: no such masks.
        input_hash: of the case's files.
    """

    formats: tuple[OutputFormat, ...]
    save_members: bool
    guarantee: float | None = None
    input_hash: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> RequestedFiles:
        """What is there, by a complete case's record."""
        level = (record.get("guarantee") or {}).get("level")
        formats = tuple(sorted(record["formats"]))
        return cls(formats, record["save_members"], level, record["input_hash"])

    def with_former(self, former: RequestedFiles) -> RequestedFiles:
        """What is wanted besides what is there, whose formats and members stay."""
        return RequestedFiles(
            tuple(sorted({*self.formats, *former.formats})),
            self.save_members or former.save_members,
            former.guarantee if self.guarantee is None else self.guarantee,
            self.input_hash,
        )


class CaseWriter:
    """Files and record of cases that share settings, masks being of the same segments.

    A case is complete once its ``<case>_run.json`` is there, which is written last. A complete one
    of the same image and settings is left alone unless further files are wanted of it; one of
    another image or other settings is refused unless ``overwrite``.

    Args:
        output: gets a folder for each case.
        segments: the foreground classes.
        algorithm: what has drawn them.
        settings: all that decides a mask, but the image.
        formats: of masks and maps.
        save_members: write each member's mask.
        overwrite: do complete cases again.
        guarantee: level of the inner and outer masks, or None.
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
    ) -> None:
        self.output, self.segments, self.algorithm = output, segments, algorithm
        self.settings, self.overwrite = dict(settings), overwrite
        self.wanted = RequestedFiles(tuple(sorted(formats)), save_members, guarantee)

    def to_write(self, case: CaseInput) -> RequestedFiles | None:
        """What is to be written of a case, what is there included; None: it is complete.

        Raises:
            InputError: a format that its input does not allow, or it is there, of another image or
                with other settings.
        """
        check_formats(case, self.wanted.formats)
        wanted = replace(self.wanted, input_hash=digest(case.files))
        record = self._record(case)
        if record.is_file() and not self.overwrite:
            former = RequestedFiles.of(read_record(record, self._of(wanted)))
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
        """Write masks and maps, more files to the case's folder, then the record of them all.

        A format that could not be written is in the record's warnings, and then raised: the others
        are there.

        Args:
            case: what was given.
            found: its maps.
            wanted: as ``to_write`` gave it.
            device: that did the work.
            warnings: besides those of the geometry.
            further: what else the record holds.
            guarantee: gives each class, as in file names, its inner and outer mask.
            write_more: writes other files to the folder.

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
        )
        write_more(folder)
        warnings += written.notes
        for warning in warnings:
            logger.warning("%s: %s", case.id, warning)
        labels = {one.value: one.name for one in self.segments}
        content = run_record(found, case, labels) | self._of(wanted)
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

    def _of(self, wanted: RequestedFiles) -> dict[str, Any]:
        """All that decides a case's masks."""
        return self.settings | {"input_hash": wanted.input_hash}
