"""Files beside a series that cannot be read: the volume without them may not be whole."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medsegdiff.data.dicom.headers import is_marked_dicom
from medsegdiff.data.readers.damage import is_broken_link, is_lfs_pointer

_ENDINGS = {".dcm", ".dicom", ".ima"}

Key = tuple[str, str]
"""StudyInstanceUID and SeriesInstanceUID."""


@dataclass
class Unreadable:
    """What cannot be read in a search.

    Attributes:
        of_series: Reason by which a series is not whole.
        perhaps: Note for a series whose folder holds such files beside several series.
        elsewhere: Number of such files that lie beside no series.
    """

    of_series: dict[Key, str] = field(default_factory=dict)
    perhaps: dict[Key, str] = field(default_factory=dict)
    elsewhere: int = 0


def owners_of(
    unread: Iterable[tuple[Path, Key | None]], groups: Mapping[Key, Iterable[Path]]
) -> Unreadable:
    """Which series the files that cannot be read belong to.

    A file belongs to the series that it names, else to the one in its folder if its name or its
    beginning is that of a DICOM file; other files in the folder are none of DICOM's.

    Args:
        unread: Path of each file, and the series that it names.
        groups: Files of each series.
    """
    folders: dict[Path, dict[Key, set[str]]] = defaultdict(lambda: defaultdict(set))
    for key, files in groups.items():
        for file in files:
            folders[file.parent][key].add(_pattern(file))
    found = Unreadable()
    certain: dict[Key, list[Path]] = defaultdict(list)
    doubtful: dict[Key, list[Path]] = defaultdict(list)
    for file, named in unread:
        beside = folders.get(file.parent, {})
        if named in groups and named is not None:
            certain[named].append(file)
        elif not _looks_like_dicom(file, set().union(*beside.values())):
            continue
        elif not beside:
            found.elsewhere += 1
        elif len(beside) == 1:
            certain[next(iter(beside))].append(file)
        else:
            for key in beside:
                doubtful[key].append(file)
    found.of_series = {key: _in_words(files) for key, files in certain.items()}
    found.perhaps = {
        key: f"{_in_words(files)}: they may belong to it" for key, files in doubtful.items()
    }
    return found


def why(file: Path) -> str:
    """Why a file cannot be read, in words."""
    if is_broken_link(file):
        return "a link to nowhere"
    try:
        if file.stat().st_size == 0:
            return "empty"
    except OSError:
        return "not accessible"
    return "a Git LFS pointer, not the file itself" if is_lfs_pointer(file) else "damaged"


def _looks_like_dicom(file: Path, patterns: set[str]) -> bool:
    if file.name.startswith("."):  # such as macOS' own beside each file
        return False
    return file.suffix.lower() in _ENDINGS or _pattern(file) in patterns or is_marked_dicom(file)


def _pattern(file: Path) -> str:
    return re.sub(r"\d+", "0", file.name.lower())


def _in_words(files: list[Path]) -> str:
    """The number of files, the place of each by name, which may be a patient's, and its fault."""
    beside = sorted(files[0].parent.iterdir())
    places = [f"number {beside.index(file) + 1} is {why(file)}" for file in files[:3]
              if file in beside]  # fmt: skip
    more = [f"and {len(files) - 3} more"] * (len(files) > 3)
    return (
        f"{len(files)} of the {len(beside)} files in its folder cannot be read "
        f"({', '.join(places + more)}, by name)"
    )
