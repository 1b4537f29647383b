"""What a user names on the command line -> cases to segment."""

from __future__ import annotations

import secrets
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from medsegdiff.data import dicom
from medsegdiff.data.images import NIFTI, Source
from medsegdiff.data.manifest import case_id
from medsegdiff.files import write_text
from medsegdiff.types import InputError


@dataclass(frozen=True)
class CaseInput:
    """One case to segment.

    Attributes:
        id: names its folder and files; holds nothing of a DICOM patient.
        image: one file or DICOM series per channel.
    """

    id: str
    image: tuple[Source, ...]


@contextmanager
def found_cases(
    inputs: Sequence[Path], output: Path
) -> Iterator[tuple[list[CaseInput], dict[str, str]]]:
    """The cases in ``inputs``, and the inputs that hold none, with the reason.

    Zips are unpacked for as long as the block runs.

    Args:
        inputs: NIfTI or DICOM files, folders or zips of such.
        output: its ``.salt`` makes the ids of DICOM cases; made when first needed.
    """
    cases: list[CaseInput] = []
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        for given in inputs:
            try:
                cases += _cases_in(given, output, stack)
            except InputError as error:
                failures[str(given)] = str(error)
        yield _with_unique_ids(cases), failures


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
    """NIfTI files directly in the folder, else in it as a whole; and its DICOM series."""
    nifti = [p for p in sorted(folder.iterdir()) if _is_nifti(p)]
    nifti = nifti or [p for p in sorted(folder.rglob("*")) if _is_nifti(p)]
    cases = [CaseInput(case_id([path]), (path,)) for path in nifti]
    return cases or _dicom_cases(folder, given, output)


def _dicom_cases(path: Path, given: Path, output: Path) -> list[CaseInput]:
    try:
        series = dicom.find_series(path)
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
    except (zipfile.BadZipFile, OSError, RuntimeError) as error:
        raise InputError(archive, f"cannot be unpacked ({error})", "Check the zip") from error


def _salt(output: Path) -> str:
    """The output folder's own random salt: the same series keeps its id there, and only there."""
    path = output / ".salt"
    if not path.is_file():
        write_text(path, secrets.token_hex(16))
    return path.read_text(encoding="utf-8").strip()


def _with_unique_ids(cases: Sequence[CaseInput]) -> list[CaseInput]:
    """Files of one name from several folders: the second gets ``-2`` behind its id, and so on."""
    seen: dict[str, int] = {}
    unique = []
    for case in cases:
        seen[case.id] = seen.get(case.id, 0) + 1
        n = seen[case.id]
        unique.append(case if n == 1 else CaseInput(f"{case.id}-{n}", case.image))
    return unique
