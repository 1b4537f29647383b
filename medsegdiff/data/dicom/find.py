"""Find the image series in a folder, a file or a DICOMDIR."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from medsegdiff.core.errors import InputError
from medsegdiff.data.dicom.duplicates import Instance, without_copies
from medsegdiff.data.dicom.flat import is_flat
from medsegdiff.data.dicom.frames import Frame, frames_of
from medsegdiff.data.dicom.headers import DAMAGED, read_header, text, whole_number
from medsegdiff.data.dicom.kinds import is_called_localiser, is_cut_short, is_object, why_left_out
from medsegdiff.data.dicom.series import Series
from medsegdiff.data.dicom.split import Part, by_orientation, split
from medsegdiff.data.dicom.unreadable import Key, Unreadable, owners_of, why
from medsegdiff.data.readers.damage import is_broken_link

logger = logging.getLogger(__name__)


@dataclass
class _SearchResult:
    """Result of a search.

    Attributes:
        images: Images of each study and series.
        left_out: Number of images that were left out, by the reason.
        notes: Sentences for the log.
        missing: Sentences on what a DICOMDIR lists and is not there, for the record of each case.
        unreadable: Files that cannot be read.
    """

    images: dict[Key, list[Instance]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unreadable: Unreadable = field(default_factory=Unreadable)


def find_series(path: str | Path, source: str | Path | None = None) -> list[Series]:
    """All image series at or below a path, sorted by study, number and identifier.

    Files are recognised by their content, not their names. Several acquisitions in one series
    become several, each with its ``part``. A series beside files that cannot be read is found with
    its ``damage``, and refused when it is read. Objects that are no image to segment (localisers,
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
        if found.unreadable.elsewhere:
            left_out.append(_unread(found.unreadable.elsewhere, top))
        reason = f"{what}: {'; '.join(left_out)}" if left_out else what
        raise InputError(source, reason, "Give a NIfTI file or a folder with a DICOM series")
    if found.unreadable.elsewhere:
        found.notes.append(_unread(found.unreadable.elsewhere, top))
    for note in [f"left out: {one}" for one in left_out] + found.missing + found.notes:
        logger.warning("%s: %s", source, note)
    return sorted(series, key=lambda s: (s.study_uid, s.number is None, s.number or 0, s.uid))


def _files(top: Path) -> list[Path]:
    folder = top.parent if top.is_file() and _is_directory(top) else top
    if folder.is_file():
        return [folder]
    return sorted(f for f in folder.rglob("*") if f.is_file() or is_broken_link(f))


def _unread(count: int, top: Path) -> str:
    if top.is_file():
        return f"it is {why(top)}"
    return f"{_count(count, 'file')} of DICOM cannot be read"


def _is_directory(file: Path) -> bool:
    try:
        meta = pydicom.filereader.read_file_meta_info(file)
        return bool(meta.MediaStorageSOPClassUID == MediaStorageDirectoryStorage)
    except DAMAGED:
        return False


def _search(files: Iterable[Path], source: str) -> _SearchResult:
    found = _SearchResult()
    groups: dict[Key, list[Instance]] = defaultdict(list)
    unread: list[tuple[Path, Key | None]] = []
    for file in files:
        try:
            header = read_header(file)
        except DAMAGED:
            unread.append((file, None))
            continue
        if not is_object(header) and _is_directory(file):
            found.missing += _missing_files(file)
            continue
        key = (text(header, "StudyInstanceUID"), text(header, "SeriesInstanceUID"))
        if is_cut_short(header):
            unread.append((file, key))
            continue
        if not is_object(header):
            continue
        reason = why_left_out(header)
        if reason:
            found.left_out[f"series {_number(header)}, {reason}"] += 1
        else:
            groups[key].append((file, header))
    found.unreadable = owners_of(unread, {k: [file for file, _ in g] for k, g in groups.items()})
    for key, instances in groups.items():
        found.images[key] = without_copies(instances)
        copies = len(instances) - len(found.images[key])
        if copies:
            number = _number(instances[0][1])
            what = f"{_count(copies, 'file')} that repeat an image"
            found.notes.append(f"series {number}: passed over {what}")
    return found


def _missing_files(file: Path) -> list[str]:
    """Notes on files that a DICOMDIR lists and that are missing."""
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
    key = (text(header, "StudyInstanceUID"), text(header, "SeriesInstanceUID"))
    damage = found.unreadable.of_series.get(key, "")
    notes = [*found.missing, *filter(None, [found.unreadable.perhaps.get(key)])]
    return [
        replace(one, damage=damage, notes=tuple(notes))
        for one in _readable_parts(instances, source, found)
    ]


def _readable_parts(
    instances: Sequence[Instance], source: str, found: _SearchResult
) -> list[Series]:
    """The volumes of what can be read of a series."""
    header = instances[0][1]
    whole = _series(instances, source)
    try:
        frames = [frame for file, head in instances for frame in frames_of(file, head)]
        if all(is_flat(head) for _, head in instances):
            return _flat_images(instances, frames, source)
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
        if len(members) == 1 and largest > 2 and "frame of reference" not in name:
            found.left_out[f"series {_number(header)}, a single image ({name})"] += 1
        else:
            kept.append((name, members))
    if len(kept) == 1:
        return [_series(instances, source, members=kept[0][1])]
    names = ", ".join(f"{name} ({_count(len(members), 'slice')})" for name, members in kept)
    found.notes.append(f"series {_number(header)} holds several acquisitions: {names}")
    return [_series(instances, source, name, members) for name, members in kept]


def _flat_images(
    instances: Sequence[Instance], frames: Sequence[Frame], source: str
) -> list[Series]:
    """Images that have no place in the body: each by itself."""
    if len(instances) == 1:
        return [_series(instances, source)]
    parts: list[Part] = [(f"image {n}", [frame]) for n, frame in enumerate(frames, start=1)]
    return [_series(instances, source, name, members) for name, members in parts]


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
