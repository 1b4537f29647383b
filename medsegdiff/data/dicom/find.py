"""Find the image series in a folder, a file or a DICOMDIR."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom.duplicates import Instance, without_copies
from medsegdiff.data.dicom.frames import Frame, frames_of
from medsegdiff.data.dicom.headers import DAMAGED, read_header, text, whole_number
from medsegdiff.data.dicom.kinds import is_called_localiser, is_object, why_left_out
from medsegdiff.data.dicom.series import Series
from medsegdiff.data.dicom.split import by_orientation, split

logger = logging.getLogger(__name__)


@dataclass
class _SearchResult:
    """Result of a search: images by study and series, number of images left out, and notes."""

    images: dict[tuple[str, str], list[Instance]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def find_series(path: str | Path, source: str | Path | None = None) -> list[Series]:
    """All image series at or below a path, sorted by study, number and identifier.

    Files are recognised by their content, not their names. Several acquisitions in one series
    become several, each with its ``part``. Objects that are no image to segment (localisers,
    secondary captures, segmentations, reports), copies, and files that a DICOMDIR lists but that
    are missing, are logged as warnings.

    Args:
        path: Path of a folder, searched with its subfolders; of a DICOMDIR, which stands for its
            folder; or of one DICOM file.
        source: Name of the user's input if it is not the path itself, such as a zip.

    Raises:
        InputError: the path does not exist, or holds no DICOM image.
    """
    top = Path(path).expanduser()
    source = str(source or top)
    if not top.exists():
        raise InputError(source, "no such file or folder", "Check the path")
    found = _search(_files(top), source)
    series = [s for of_series in found.images.values() for s in _parts(of_series, source, found)]
    left_out = [f"{what} ({_count(count, 'image')})" for what, count in found.left_out.items()]
    if not series:
        what = "is not a DICOM image" if top.is_file() and not left_out else "holds no DICOM image"
        reason = f"{what}: {'; '.join(left_out)}" if left_out else what
        raise InputError(source, reason, "Give a NIfTI file or a folder with a DICOM series")
    for note in [f"left out: {one}" for one in left_out] + found.notes:
        logger.warning("%s: %s", source, note)
    return sorted(series, key=lambda s: (s.study_uid, s.number is None, s.number or 0, s.uid))


def _files(top: Path) -> list[Path]:
    folder = top.parent if top.is_file() and _is_directory(top) else top
    if folder.is_file():
        return [folder]
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _is_directory(file: Path) -> bool:
    try:
        meta = pydicom.filereader.read_file_meta_info(file)
        return bool(meta.MediaStorageSOPClassUID == MediaStorageDirectoryStorage)
    except DAMAGED:
        return False


def _search(files: Iterable[Path], source: str) -> _SearchResult:
    found = _SearchResult()
    groups: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for file in files:
        try:
            header = read_header(file)
        except DAMAGED:
            continue
        if not is_object(header):
            found.notes += _missing_files(file)
            continue
        reason = why_left_out(header)
        if reason:
            found.left_out[f"series {_number(header)}, {reason}"] += 1
        else:
            key = (text(header, "StudyInstanceUID"), text(header, "SeriesInstanceUID"))
            groups[key].append((file, header))
    for key, instances in groups.items():
        found.images[key] = without_copies(instances)
        copies = len(instances) - len(found.images[key])
        if copies:
            number = _number(instances[0][1])
            what = f"{_count(copies, 'file')} that repeat an image"
            found.notes.append(f"series {number}: passed over {what}")
    return found


def _missing_files(file: Path) -> list[str]:
    """Notes on a file without a series: a DICOMDIR may list files that are missing."""
    if not _is_directory(file):
        return []
    try:
        records = pydicom.dcmread(file).DirectoryRecordSequence
        names = [record.ReferencedFileID for record in records if "ReferencedFileID" in record]
        paths = [[name] if isinstance(name, str) else list(name) for name in names]
        missing = sum(not file.parent.joinpath(*parts).is_file() for parts in paths)
    except DAMAGED:
        return ["its DICOMDIR cannot be understood; the files beside it are looked at"]
    return [f"{missing} of {len(paths)} files that its DICOMDIR lists are not there"] * bool(
        missing
    )


def _parts(instances: Sequence[Instance], source: str, found: _SearchResult) -> list[Series]:
    """The volumes of one series."""
    header = instances[0][1]
    whole = _series(instances, source)
    try:
        frames = [frame for file, head in instances for frame in frames_of(file, head)]
        if is_called_localiser(header) and len(by_orientation(frames)) > 1:
            found.left_out[f"series {_number(header)}, a localiser"] += len(frames)
            return []
        parts = split(frames)
    except DAMAGED:  # reported when the series is read
        return [whole]
    if len(parts) == 1:
        return [whole]
    largest = max(len(members) for _, members in parts)
    kept = []
    for name, members in parts:
        if len(members) == 1 and largest > 2:
            found.left_out[f"series {_number(header)}, a single image ({name})"] += 1
        else:
            kept.append((name, members))
    if len(kept) == 1:
        return [_series(instances, source, members=kept[0][1])]
    names = ", ".join(f"{name} ({_count(len(members), 'slice')})" for name, members in kept)
    found.notes.append(f"series {_number(header)} holds several acquisitions: {names}")
    return [_series(instances, source, name, members) for name, members in kept]


def _series(
    instances: Sequence[Instance], source: str, part: str = "", members: Sequence[Frame] = ()
) -> Series:
    """The whole of a series, or a part of it."""
    first: Any = instances[0][1]
    numbers: dict[Path, list[int]] = defaultdict(list)
    for frame in members:
        numbers[frame.file].append(frame.number)
    return Series(
        files=tuple(numbers or (file for file, _ in instances)),
        study_uid=text(first, "StudyInstanceUID"),
        uid=text(first, "SeriesInstanceUID"),
        number=whole_number(first, "SeriesNumber"),
        description=text(first, "SeriesDescription"),
        modality=text(first, "Modality"),
        patient_id=text(first, "PatientID"),
        source=source,
        part=part,
        frames=tuple(tuple(sorted(found)) for found in numbers.values()),
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _number(header: Any) -> str:
    return text(header, "SeriesNumber") or "?"
