"""What a user names on the command line -> cases to segment."""

from __future__ import annotations

import itertools
import logging
import secrets
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from medsegdiff.data import dicom
from medsegdiff.data.images import NIFTI, Source
from medsegdiff.data.manifest import case_id
from medsegdiff.dicomweb.address import Address, is_address, parse_address
from medsegdiff.dicomweb.fetch import fetch
from medsegdiff.files import write_text
from medsegdiff.types import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseInput:
    """One case to segment.

    Attributes:
        id: names its folder and files; holds nothing of a DICOM patient.
        image: one file or DICOM series per channel.
        service: the DICOMweb server that the image came from; None for local files.
    """

    id: str
    image: tuple[Source, ...]
    service: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the image is read from, channel by channel."""
        return tuple(
            file
            for one in self.image
            for file in (one.files if isinstance(one, dicom.Series) else (Path(one),))
        )


def parse_inputs(inputs: Sequence[str | Path]) -> list[Path | Address]:
    """Paths and DICOMweb addresses from what a user wrote.

    Raises:
        UsageError: an address that cannot be understood, or holds credentials.
        InputError: the package that addresses need is not installed.
    """
    numbered = enumerate(inputs, start=1)
    return [parse_address(str(i), n) if is_address(i) else Path(i) for n, i in numbered]


@contextmanager
def found_cases(
    inputs: Sequence[Path | Address], output: Path
) -> Iterator[tuple[list[CaseInput], dict[str, InputError]]]:
    """The cases in ``inputs``, and the inputs that hold none, with the reason.

    Zips are unpacked, and series of a DICOMweb server fetched, for as long as the block runs.

    Args:
        inputs: NIfTI or DICOM files, folders or zips of such, addresses.
        output: its ``.salt`` makes the ids of DICOM cases; made when first needed.
    """
    cases: list[CaseInput] = []
    failures: dict[str, InputError] = {}
    with ExitStack() as stack:
        for given in inputs:
            try:
                cases += _cases_in(given, output, stack)
            except InputError as error:
                failures[str(given)] = error
            except OSError as error:  # whose own words name files below what was given
                rule = f"cannot be read ({error.strerror})"
                failures[str(given)] = InputError(given, rule, "Check it")
        yield _with_unique_ids(cases), failures


def _cases_in(given: Path | Address, output: Path, stack: ExitStack) -> list[CaseInput]:
    if isinstance(given, Address):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fetch(given, folder)
        return [replace(c, service=given.service) for c in _dicom_cases(folder, given, output)]
    if not given.exists():
        raise InputError(given, "there is no such file or folder", "Check the path")
    if given.suffix.lower() == ".zip":
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _unpack(given, folder)
        return _cases_in_folder(folder, given, output)
    if given.is_dir():
        return _cases_in_folder(given, given, output)
    if given.name.lower().endswith(NIFTI):
        return [CaseInput(case_id([given]), (given,))]
    return _dicom_cases(given, given, output)


def _cases_in_folder(folder: Path, given: Path, output: Path) -> list[CaseInput]:
    """NIfTI files directly in the folder, else all below it, else its DICOM series."""
    below = [p for p in sorted(folder.rglob("*")) if _is_nifti(p)]
    nifti = [p for p in below if p.parent == folder] or below
    if not nifti:
        return _dicom_cases(folder, given, output)
    left_out = {p.parent for p in below} - {p.parent for p in nifti}
    others = left_out - {output, *output.glob("*")}
    if others:  # whose names may be patients'
        told = "%s: NIfTI files of %d folders below it are left out. Name these to include them"
        logger.warning(told, given, len(others))
    return [CaseInput(case_id([path]), (path,)) for path in nifti]


def _dicom_cases(path: Path, given: Path | Address, output: Path) -> list[CaseInput]:
    try:
        series = dicom.find_series(path, str(given))
    except InputError as error:
        raise InputError(
            given,
            "holds neither a NIfTI file (.nii, .nii.gz) nor a DICOM image",
            "Name one that does",
        ) from error
    salt = _salt(output)
    return [CaseInput(dicom.case_id(one, salt), (one,)) for one in series]


def _is_nifti(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(NIFTI) and path.name[0] != "."


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as content:
            content.extractall(folder)  # refuses to leave the folder
    except Exception as error:  # a damaged archive raises whatever its decompressor does
        kind = type(error).__name__  # its words name files
        raise InputError(archive, f"cannot be unpacked ({kind})", "Check the zip") from error


def _salt(output: Path) -> str:
    """The output folder's own random salt: the same series keeps its id there, and only there."""
    path = output / ".salt"
    if not path.is_file():
        write_text(path, secrets.token_hex(16))
    return path.read_text(encoding="utf-8").strip()


def _with_unique_ids(cases: Sequence[CaseInput]) -> list[CaseInput]:
    """Files of one name from several folders: the second gets ``-2`` behind its id, and so on."""
    given = {case.id for case in cases}
    unique: dict[str, CaseInput] = {}
    for case in cases:
        others = (f"{case.id}-{n}" for n in itertools.count(2))
        free = (name for name in others if name not in unique and name not in given)
        name = next(free) if case.id in unique else case.id
        unique[name] = replace(case, id=name)
    return list(unique.values())
