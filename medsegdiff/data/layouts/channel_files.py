"""Channels of a case in one file each: ``x_0000.nii.gz``, ``x_0001.nii.gz``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from medsegdiff.core.errors import InputError
from medsegdiff.data.formats import without_ending

_NUMBERED = re.compile(r"(.+)_(\d{4})$")


def split_channel(name: str) -> tuple[str, int | None]:
    """Name of the case and number of the channel, from a file's name; None without a number.

    >>> split_channel("brain_07_0001.nii.gz"), split_channel("brain_07.nii.gz")
    (('brain_07', 1), ('brain_07', None))
    """
    found = _NUMBERED.match(without_ending(name))
    return (found[1], int(found[2])) if found else (without_ending(name), None)


def by_case(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Files of each case in the order of their channels, by the name of the case."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(files):
        groups[split_channel(file.name)[0]].append(file)
    return dict(groups)


def joined_channels(cases: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Cases of one file each, joined if all of them are channels, and as many for each case.

    Args:
        cases: Files by name without ending.

    >>> sorted(joined_channels({n: [Path(n)] for n in ("a_0000", "a_0001", "b_0000", "b_0001")}))
    ['a', 'b']
    >>> sorted(joined_channels({n: [Path(n)] for n in ("slice_0001", "slice_0002")}))
    ['slice_0001', 'slice_0002']
    """
    groups: dict[str, dict[int | None, Path]] = defaultdict(dict)
    for name, (path,) in sorted(cases.items()):
        stem, number = split_channel(name)
        groups[stem][number] = path
    numbers = {tuple(group) for group in groups.values()}
    if len(numbers) != 1 or numbers != {tuple(range(len(next(iter(numbers)))))}:
        return cases
    return {stem: list(group.values()) for stem, group in groups.items()}


def require_channels(case: str, files: Iterable[Path], count: int) -> None:
    """Refuse a case whose files are not the channels 0 to ``count`` - 1.

    Args:
        case: Name of the case.
        files: Paths of its files.
        count: Number of channels.

    Raises:
        InputError: A channel is missing or there are others.
    """
    numbers = [split_channel(file.name)[1] for file in files]
    if numbers != list(range(count)):
        found = ", ".join("none" if n is None else f"_{n:04d}" for n in numbers)
        rule = f"needs files of {count} channels, _0000 to _{count - 1:04d}, but has {found}"
        raise InputError(case, rule, "Add the missing files, or remove the others")
