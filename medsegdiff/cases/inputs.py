"""What a user names on the command line -> cases to segment."""

from __future__ import annotations

import itertools
import logging
import secrets
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from medsegdiff.core.atomic_files import write_text
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Uneven
from medsegdiff.data import dicom
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.formats import Kind, format_of, list_endings
from medsegdiff.data.images import Source, only_series
from medsegdiff.data.manifest import Case, case_id, load_manifest
from medsegdiff.data.readers.damage import broken_link, is_broken_link
from medsegdiff.dicomweb.address import Address, is_address, parse_address
from medsegdiff.dicomweb.wado import fetch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DicomOptions:
    """How DICOM series become cases.

    Attributes:
        uneven: what becomes of a series whose slices are not evenly spaced.
        channels: words that each stand for one series of a study (see
            :func:`medsegdiff.data.dicom.choose_channels`): a study is a case with these channels.
            If there are none, each series is a case.
    """

    uneven: Uneven = "refuse"
    channels: tuple[str, ...] = ()


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
    inputs: Sequence[Path | Address], output: Path, options: DicomOptions | None = None
) -> Iterator[tuple[list[CaseInput], dict[str, InputError]]]:
    """The cases in ``inputs``, and the inputs that hold none, with the reason.

    Zips are unpacked, and series of a DICOMweb server fetched, for as long as the block runs.

    Args:
        inputs: image files (NIfTI, NRRD, MetaImage, photographs, DICOM), folders or zips of such,
            addresses, or a data set's ``dataset.json``.
        output: its ``.salt`` makes the ids of DICOM cases; made when first needed.
        options: of DICOM inputs.
    """
    options = options or DicomOptions()
    cases: list[CaseInput] = []
    failures: dict[str, InputError] = {}
    with ExitStack() as stack:
        for given in inputs:
            try:
                if isinstance(given, Path) and given.suffix.lower() == ".json":
                    listed, failed = described_cases(load_manifest(given).cases, options)
                    cases, failures = cases + listed, failures | failed
                    continue
                cases += _cases_in(given, output, stack, options, failures)
            except InputError as error:
                failures[str(given)] = error
            except OSError as error:  # whose own words name files below what was given
                rule = f"cannot be read ({error.strerror})"
                failures[str(given)] = InputError(given, rule, "Check it")
        yield _with_unique_ids(cases), failures


def described_cases(
    cases: Iterable[Case], options: DicomOptions | None = None
) -> tuple[list[CaseInput], dict[str, InputError]]:
    """The cases of a data set's description, by their names there, and those that failed.

    Folders are the one DICOM series in them; of ``options``, ``uneven`` counts.
    """
    uneven = (options or DicomOptions()).uneven
    found: list[CaseInput] = []
    failures: dict[str, InputError] = {}
    for case in cases:
        try:
            image: tuple[Source, ...] = tuple(
                replace(only_series(path), uneven=uneven) if path.is_dir() else path
                for path in case.images
            )
            found.append(CaseInput(case.id, image))
        except InputError as error:
            failures[case.id] = error
    return found, failures


def _cases_in(
    given: Path | Address,
    output: Path,
    stack: ExitStack,
    options: DicomOptions,
    failures: dict[str, InputError],
) -> list[CaseInput]:
    """The cases of one input. ``failures`` gets the studies in it that make no case."""
    if isinstance(given, Address):
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fetch(given, folder)
        series = _dicom_series(folder, str(given))
        fetched = _dicom_cases(series, given, output, options, failures)
        return [replace(case, service=given.service) for case in fetched]
    if not given.exists():
        raise InputError(given, "there is no such file or folder", "Check the path")
    folder = given
    if given.suffix.lower() == ".zip":
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _unpack(given, folder)
    volumes = _files_of(folder, "volume", output)
    for file in filter(is_broken_link, volumes):
        failures[str(file)] = broken_link(file)
    if volumes:
        volumes = [file for file in volumes if not is_broken_link(file)]
        _tell_left_out(folder, volumes)
        beside = _series_beside(folder, given)
        return _one_each(volumes) + _dicom_cases(beside, given, output, options, failures)
    try:
        series = _dicom_series(folder, given)
    except InputError:
        photographs = _files_of(folder, "photograph", output)
        if not photographs:
            raise
        return _one_each(photographs)
    return _dicom_cases(series, given, output, options, failures)


def _one_each(files: Sequence[Path]) -> list[CaseInput]:
    return [CaseInput(case_id([path]), (path,)) for path in files]


def _files_of(path: Path, kind: Kind, output: Path) -> list[Path]:
    """The file itself, of whatever kind, or those directly in the folder, else all below it.

    What lies in the output folder is no input, unless it is what the user named.
    """
    if path.is_file():
        return [path] if format_of(path) else []
    inside = output.resolve().is_relative_to(path.resolve()) and output.resolve() != path.resolve()
    below = [
        file
        for file in sorted(path.rglob("*"))
        if _is_image(file, kind) and not (inside and file.is_relative_to(output))
    ]
    files = [file for file in below if file.parent == path] or below
    others = {file.parent for file in below} - {file.parent for file in files}
    if others:  # whose names may be patients'
        told = "%s: image files of %d folders below it are left out. Name these to include them"
        logger.warning(told, path, len(others))
    return files


def _tell_left_out(folder: Path, chosen: Sequence[Path]) -> None:
    """Photographs beside volumes are no cases, and this is said."""
    others = [] if folder.is_file() else [f for f in folder.iterdir() if _is_image(f, "photograph")]
    if others and any(file.parent == folder for file in chosen):
        told = "%s: %d photographs beside the volumes are left out. Name these to include them"
        logger.warning(told, folder, len(others))


def _series_beside(folder: Path, given: Path) -> list[dicom.Series]:
    """The DICOM series in a folder of other volumes; none if it has none, or all are left out."""
    if folder.is_file():
        return []
    try:
        return dicom.find_series(folder, given)
    except InputError as error:
        if ": " in error.rule:
            logger.warning("%s: %s", given, error.rule)
        return []


def _dicom_series(path: Path, given: Path | str) -> list[dicom.Series]:
    try:
        return dicom.find_series(path, given)
    except InputError as error:
        why = error.rule.partition(": ")[2]
        raise InputError(
            given,
            "holds neither a file of a known format nor a DICOM image"
            + (f" to segment ({why})" if why else ""),
            f"Name one that does; known are DICOM and {', '.join(list_endings())}",
        ) from error


def _dicom_cases(
    series: Sequence[dicom.Series],
    given: object,
    output: Path,
    options: DicomOptions,
    failures: dict[str, InputError],
) -> list[CaseInput]:
    """Each series, or with channels each study, as a case. ``given`` names the input in errors."""
    salt = _salt(output) if series else ""
    series = [replace(one, uneven=options.uneven) for one in series]
    if not options.channels:
        return [CaseInput(dicom.case_id(one, salt), (one,)) for one in series]
    cases = []
    studies = dicom.by_study(series)
    for number, study in enumerate(studies, start=1):
        name = f"{given}, study {number} of {len(studies)}" if len(studies) > 1 else str(given)
        try:
            chosen = dicom.choose_channels(study, options.channels, name)
        except InputError as error:
            failures[name] = error
            continue
        cases.append(CaseInput(dicom.case_id(chosen, salt), chosen))
    return cases


def _is_image(path: Path, kind: Kind) -> bool:
    found = format_of(path)
    there = path.is_file() or is_broken_link(path)  # which fails by itself
    return there and path.name[0] != "." and found is not None and found.kind == kind


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
