"""What a user names on the command line -> cases to segment."""

from __future__ import annotations

import itertools
import logging
import secrets
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from medsegdiff.data import dicom
from medsegdiff.data.images import NIFTI, Source, only_series
from medsegdiff.data.manifest import Case, case_id, load_manifest
from medsegdiff.files import write_text
from medsegdiff.types import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseInput:
    """One case to segment.

    Attributes:
        id: names its folder and files; holds nothing of a DICOM patient.
        image: one file or DICOM series per channel.
    """

    id: str
    image: tuple[Source, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that the image is read from, channel by channel."""
        return tuple(
            file
            for one in self.image
            for file in (one.files if isinstance(one, dicom.Series) else (Path(one),))
        )


@contextmanager
def found_cases(
    inputs: Sequence[Path], output: Path
) -> Iterator[tuple[list[CaseInput], dict[str, str]]]:
    """The cases in ``inputs``, and the inputs that hold none, with the reason.

    Zips are unpacked for as long as the block runs.

    Args:
        inputs: NIfTI or DICOM files, folders or zips of such, or a data set's ``dataset.json``.
        output: its ``.salt`` makes the ids of DICOM cases; made when first needed.
    """
    cases: list[CaseInput] = []
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        for given in inputs:
            try:
                if given.suffix.lower() == ".json":
                    listed, failed = described_cases(load_manifest(given).cases)
                    cases, failures = cases + listed, failures | failed
                    continue
                cases += _cases_in(given, output, stack)
            except (InputError, OSError) as error:
                failures[str(given)] = str(error)
        yield _with_unique_ids(cases), failures


def described_cases(cases: Iterable[Case]) -> tuple[list[CaseInput], dict[str, str]]:
    """The cases of a data set's description, by their names there, and those that failed.

    Folders are the one DICOM series in them.
    """
    found: list[CaseInput] = []
    failures: dict[str, str] = {}
    for case in cases:
        try:
            image = tuple(only_series(path) if path.is_dir() else path for path in case.images)
            found.append(CaseInput(case.id, image))
        except InputError as error:
            failures[case.id] = str(error)
    return found, failures


def _cases_in(given: Path, output: Path, stack: ExitStack) -> list[CaseInput]:
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
    for other in sorted(left_out - {output, *output.glob("*")}):
        logger.warning("%s: its NIfTI files are left out. Name the folder to include them", other)
    return [CaseInput(case_id([path]), (path,)) for path in nifti]


def _dicom_cases(path: Path, given: Path, output: Path) -> list[CaseInput]:
    try:
        series = dicom.find_series(path, given)
    except InputError as error:
        raise InputError(
            given,
            "holds neither a NIfTI file (.nii, .nii.gz) nor a DICOM image",
            "Name a file, folder or zip that does",
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
        raise InputError(archive, f"cannot be unpacked ({error})", "Check the zip") from error


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
        unique[name] = CaseInput(name, case.image)
    return list(unique.values())
