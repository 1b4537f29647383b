"""Checks of a public set's folder: wrong path, other set, archive, or incomplete download."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

from medsegdiff.core.errors import InputError

T = TypeVar("T")

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
_MOST_FOLDERS = 500
"""Largest number of folders that are searched for the right one below a wrong one."""


def require_layout(
    name: str, root: Path, marks: Mapping[str, Sequence[str]], page: str = ""
) -> None:
    """Refuse a folder that is not the one of this set, and name the right one if it is found.

    Args:
        name: Name of the set.
        root: Folder to check.
        marks: Glob patterns by name of each known set; a folder is that of a set if any matches.
        page: Page of the set's documentation, without ending; empty: none.

    Raises:
        InputError: the set lies below or above the folder, the folder holds another set or archives
            that are not unpacked, or it is not known.
    """
    if matches(root, marks[name]):
        return
    below = _first(_folders_below(root), lambda folder: matches(folder, marks[name]))
    if below:
        raise InputError(root, f"{name} lies below this folder", f"Give {name}={below}")
    above = _first(root.absolute().parents[:3], lambda folder: matches(folder, marks[name]))
    if above:
        raise InputError(root, f"is only a part of {name}", f"Give {name}={above}")
    other = _first(marks, lambda known: matches(root, marks[known]))
    if other:
        raise InputError(root, f"is {other}, not {name}", f"Give {other}={root} or another folder")
    packed = archives(root)
    if packed:
        rule = f"{name} is not unpacked here, but there is {packed[0].name}{_others(len(packed))}"
        raise InputError(root, rule, "Unpack it in this folder")
    empty = not any(root.iterdir())
    what = "the folder is empty" if empty else f"does not look like {name}"
    remedy = f"Give its folder, in which there is {' or '.join(marks[name])}"
    raise InputError(root, what, f"{remedy} (docs/data_sets/{page}.md)" if page else remedy)


def require_files(name: str, root: Path, files: Iterable[Path]) -> None:
    """Refuse a set that has missing or empty files.

    Args:
        name: Name of the set.
        root: Folder of the set, from which files are named in messages.
        files: Paths of all files that the set needs.

    Raises:
        InputError: files are missing or empty; the message names the first, the number of others,
            and an archive that may hold them.
    """
    needed = sorted(set(files))
    missing = [file for file in needed if not file.exists()]
    if missing:
        packed = archives(root) or archives(missing[0].parent)
        rule = (
            f"is {name}, but not complete: {len(missing)} of {len(needed)} files missing: "
            f"{_named(missing[0], root)}{_others(len(missing))}"
        )
        beside = f"Unpack {packed[0].name}{_others(len(packed))}, or download" if packed else "Get"
        raise InputError(root, rule, f"{beside} what is missing")
    empty = [file for file in needed if file.is_file() and file.stat().st_size == 0]
    if empty:
        rule = f"is {name}, but has files without content: {_named(empty[0], root)}"
        raise InputError(root, rule + _others(len(empty)), "Download them again")


def matches(root: Path, marks: Iterable[str]) -> bool:
    """Whether any of the patterns matches something in the folder."""
    return any(next(root.glob(mark), None) is not None for mark in marks)


def archives(folder: Path) -> list[Path]:
    """The archives in a folder, sorted; none if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_file() and f.name.lower().endswith(ARCHIVES))


def nifti(folder: Path, stem: str) -> Path:
    """Path of ``stem.nii``, which some unpacking programs leave, or else of ``stem.nii.gz``."""
    plain = folder / f"{stem}.nii"
    return plain if plain.exists() else folder / f"{stem}.nii.gz"


def paired(
    images: Path, labels: Path, image_ending: str, label_ending: str
) -> dict[str, tuple[Path, Path]]:
    """Paths of image and label by name, for every name that either has; one may be missing.

    Args:
        images: Folder of the images.
        labels: Folder of the labels.
        image_ending: Ending of the images' names, which is not part of the name.
        label_ending: Ending of the labels' names, which is not part of the name.
    """
    names = _names(images, image_ending) | _names(labels, label_ending)
    return {
        name: (images / f"{name}{image_ending}", labels / f"{name}{label_ending}")
        for name in sorted(names)
    }


def unwrapped(folder: Path) -> Path:
    """The inner folder of the same name, if there is one (archive unpacked into its own name)."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def _names(folder: Path, ending: str) -> set[str]:
    files = folder.glob(f"*{ending}")
    return {file.name.removesuffix(ending) for file in files if not file.name.startswith(".")}


def _folders_below(root: Path) -> Iterable[Path]:
    children = sorted(folder for folder in root.iterdir() if folder.is_dir())
    yield from children
    deeper = (inner for folder in children for inner in sorted(folder.iterdir()) if inner.is_dir())
    yield from islice(deeper, _MOST_FOLDERS)


def _first(items: Iterable[T], accepts: Callable[[T], bool]) -> T | None:
    return next((item for item in items if accepts(item)), None)


def _named(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def _others(count: int) -> str:
    """The words after the first of ``count`` items, which count the others.

    >>> _others(1), _others(2), _others(13)
    ('', ' and 1 other', ' and 12 others')
    """
    return "" if count < 2 else f" and {count - 1} other{'s' if count > 2 else ''}"
