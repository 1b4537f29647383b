"""Split the frames of one series into acquisitions, each with one frame at a place.

Scanners put several orientations, echoes, b-values, time points or image types in one series. A
series with one frame at each place is left whole, whatever its headers say, unless its frames lie
in several frames of reference, or in acquisitions that overlap.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medsegdiff.data.dicom.frames import Frame, vectors
from medsegdiff.data.dicom.headers import (
    DAMAGED,
    GE_B_VALUE,
    GE_DIRECTION,
    SIEMENS_B_VALUE,
    SIEMENS_DIRECTION,
    text,
)

ORIENTATION_TOLERANCE = 1e-3
_SAME_PLACE_MM = 0.01
_COVERED = 0.75  # least share of places of each acquisition, except one that may be incomplete
_TIMES = ("AcquisitionDateTime", "AcquisitionTime", "ContentTime", "TriggerTime")

Part = tuple[str, list[Frame]]
"""Name that distinguishes an acquisition from the others, and its frames."""


def split(frames: Sequence[Frame]) -> list[Part]:
    """The acquisitions of a series; a single one has no name.

    Frames that cannot be told apart stay together, and are refused when they are read.

    Raises:
        DAMAGED: a header lacks the frame's position, or is broken.
    """
    references = _by_frame_of_reference(frames)
    if len(references) == 1:
        return _split_one(frames)
    return [
        (f"frame of reference {n} {name}".strip(), part)
        for n, members in enumerate(references, start=1)
        for name, part in _split_one(members)
    ]


def _split_one(frames: Sequence[Frame]) -> list[Part]:
    """The acquisitions in one frame of reference."""
    stacks = by_orientation(frames)
    if len(stacks) > 1 and max(len(stack) for stack in stacks) == 1:
        return [("", list(frames))]
    names = _plane_names(stacks) if len(stacks) > 1 else [""]
    return [p for name, stack in zip(names, stacks, strict=True) for p in _refine(name, stack, 0)]


def _by_frame_of_reference(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames whose positions are measured from one point, in the order of their appearance.

    If each file names a frame of its own, an archive has rewritten identifiers one by one: they
    say nothing.
    """
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[text(frame.header, "FrameOfReferenceUID")].append(frame)
    if len(groups.keys() - {""}) < 2 or 2 < len(groups) == len(frames):
        return [list(frames)]
    return list(groups.values())


def by_orientation(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames of the same row and column direction, in the order in which they first appear.

    Raises:
        DAMAGED: a header lacks the frame's orientation, or is broken.
    """
    stacks: list[tuple[NDArray[np.float64], list[Frame]]] = []
    directions = vectors(frames, "ImageOrientationPatient", 6)
    for frame, direction in zip(frames, directions, strict=True):
        for known, stack in stacks:
            if np.abs(known - direction).max() <= ORIENTATION_TOLERANCE:
                stack.append(frame)
                break
        else:
            stacks.append((direction, [frame]))
    return [stack for _, stack in stacks]


def _plane_names(stacks: Sequence[Sequence[Frame]]) -> list[str]:
    """Nearest of axial, coronal and sagittal for each stack, and a number where two are equal."""
    nearest = []
    for stack in stacks:
        row, column = vectors(stack[:1], "ImageOrientationPatient", 6).reshape(2, 3)
        normal = np.abs(np.cross(row, column))
        nearest.append(("sagittal", "coronal", "axial")[int(normal.argmax())])
    seen: Counter[str] = Counter()
    names = []
    for name in nearest:
        seen[name] += 1
        names.append(f"{name} {seen[name]}" if nearest.count(name) > 1 else name)
    return names


def _refine(name: str, frames: list[Frame], first: int) -> list[Part]:
    """Split frames of one orientation by the first field that distinguishes those at one place."""
    places = _places(frames)
    if len(set(places)) == len(frames):
        overlapping = {} if _even(frames) else _overlapping(frames)
        return [(f"{name} {label}".strip(), f) for label, f in overlapping.items()] or [
            (name, frames)
        ]
    for number in range(first, len(_DISTINGUISHING)):
        groups = _groups(frames, places, *_DISTINGUISHING[number])
        if groups:
            return [
                part
                for label, members in groups.items()
                for part in _refine(f"{name} {label}".strip(), members, number + 1)
            ]
    for tag in _TIMES:
        turns = _turns(frames, places, tag)
        if turns:
            return [(f"{name} time {n}".strip(), turn) for n, turn in enumerate(turns, start=1)]
    overlapping = _overlapping(frames)
    return [(f"{name} {label}".strip(), f) for label, f in overlapping.items()] or [(name, frames)]


def _overlapping(frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    """Frames by acquisition, if each is an even stack and they overlap; else nothing."""
    groups: dict[float | None, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[_number("AcquisitionNumber")(frame)].append(frame)
    if len(groups) < 2 or None in groups or not all(map(_even, groups.values())):
        return {}
    ends = sorted(
        (float(along.min()), float(along.max())) for along in map(_along, groups.values())
    )
    if all(one[1] < after[0] for one, after in itertools.pairwise(ends)):
        return {}
    ascending = sorted((n, members) for n, members in groups.items() if n is not None)
    return {f"acquisition {number:.6g}": members for number, members in ascending}


def _even(frames: Sequence[Frame]) -> bool:
    """Whether frames lie at even distances, two at least."""
    gaps = np.diff(np.sort(_along(frames)))
    return len(gaps) > 0 and gaps.min() > _SAME_PLACE_MM and np.ptp(gaps) < 0.1 * gaps.max()


def _along(frames: Sequence[Frame]) -> NDArray[np.float64]:
    """Position of each frame along the normal, in mm."""
    row, column = vectors(frames[:1], "ImageOrientationPatient", 6).reshape(2, 3)
    return np.asarray(vectors(frames, "ImagePositionPatient", 3) @ np.cross(row, column))


def _places(frames: Sequence[Frame]) -> list[int]:
    """Number of the place along the normal that each frame lies at."""
    along = _along(frames)
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    apart = gaps[gaps > _SAME_PLACE_MM]
    least = max(_SAME_PLACE_MM, 0.05 * float(np.median(apart))) if len(apart) else _SAME_PLACE_MM
    numbers = np.empty(len(frames), dtype=int)
    numbers[order] = np.concatenate([[0], np.cumsum(gaps > least)])
    return [int(number) for number in numbers]


def _groups(
    frames: Sequence[Frame],
    places: Sequence[int],
    value_of: Callable[[Frame], Hashable],
    label: Callable[[Any, list[Any]], str],
) -> dict[str, list[Frame]]:
    """Frames by the values of a field, ascending, if it distinguishes acquisitions; else nothing.

    It does if every frame has it, it has no more values than there are frames at some place, and
    each of its values covers most places.
    """
    values = [value_of(frame) for frame in frames]
    known: list[Any] = sorted(set(values) - {None}, key=lambda v: (isinstance(v, tuple), v))
    if None in values or not 1 < len(known) <= max(Counter(places).values()):
        return {}
    covered = defaultdict(set)
    for value, place in zip(values, places, strict=True):
        covered[value].add(place)
    shares = sorted(len(found) / len(set(places)) for found in covered.values())
    if any(share < _COVERED for share in shares[1:]):
        return {}
    groups: dict[str, list[Frame]] = {label(value, known): [] for value in known}
    for frame, value in zip(frames, values, strict=True):
        groups[label(value, known)].append(frame)
    return groups if len(groups) == len(known) else {}


def _turns(frames: Sequence[Frame], places: Sequence[int], tag: str) -> list[list[Frame]]:
    """For each n, the n-th frames in time at all places, if they precede all of the next n."""
    at_place: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for number, (frame, place) in enumerate(zip(frames, places, strict=True)):
        time = _seconds(frame, tag)
        if time is None:
            return []
        at_place[place].append((time, number))
    counts = {len(found) for found in at_place.values()}
    if len(counts) > 1:
        return []
    turns = list(zip(*(sorted(found) for found in at_place.values()), strict=True))
    for one, after in itertools.pairwise(turns):
        if max(time for time, _ in one) >= min(time for time, _ in after):
            return []
    return [[frames[number] for _, number in sorted(turn, key=lambda t: t[1])] for turn in turns]


def _seconds(frame: Frame, tag: str) -> float | None:
    """A number that grows with the time of a frame."""
    return _number(tag)(frame)


def _number(tag: str) -> Callable[[Frame], float | None]:
    def of(frame: Frame) -> float | None:
        try:
            value = frame.get(tag)
            return None if value in (None, "") else float(np.ravel(value)[0])
        except DAMAGED:
            return None

    return of


def _words(tag: str) -> Callable[[Frame], tuple[str, ...] | None]:
    def of(frame: Frame) -> tuple[str, ...] | None:
        try:
            value = frame.get(tag)
            words = [value] if isinstance(value, str) else list(value or [])
            return tuple(str(word).strip() for word in words) or None
        except DAMAGED:
            return None

    return of


def _b_value(frame: Frame) -> float:
    """The b-value in s/mm2; Siemens and GE store it in fields of their own; 0 if it is missing."""
    for tag in ("DiffusionBValue", SIEMENS_B_VALUE, GE_B_VALUE):
        found = _numbers(frame, tag)
        if found:
            return found[0] % 1e9  # GE adds a billion
    return 0.0


def _direction(frame: Frame) -> tuple[float, ...]:
    """The direction of the gradient; Siemens and GE store it in fields of their own.

    Empty where there is none, as of the mean over all directions.
    """
    for tags in (("DiffusionGradientOrientation",), (SIEMENS_DIRECTION,), GE_DIRECTION):
        found = [number for tag in tags for number in _numbers(frame, tag)]
        if len(found) == 3:
            return tuple(round(number, 4) for number in found)
    return ()


def _numbers(frame: Frame, tag: str | int) -> list[float]:
    """The numbers of a field, which may be bytes if it is a vendor's own; none if it is damaged."""
    try:
        value = frame.get(tag)
        if isinstance(value, bytes) and tag == SIEMENS_DIRECTION:
            value = np.frombuffer(value, "<f8")
        elif isinstance(value, bytes):
            value = value.decode("ascii").strip("\0 ").split("\\")
        return [] if value is None else [float(number) for number in np.ravel(value)]
    except DAMAGED:
        return []


def _numbered(name: str, unit: str = "") -> Callable[[Any, list[Any]], str]:
    return lambda value, known: f"{name} {value:.6g} {unit}".strip()


def _ranked(name: str) -> Callable[[Any, list[Any]], str]:
    """The rank of a value among those that are not empty."""

    def label(value: Any, known: list[Any]) -> str:
        return f"{name} {[v for v in known if v].index(value) + 1}" if value else f"no {name}"

    return label


def _differing_words(value: tuple[str, ...], known: list[tuple[str, ...]]) -> str:
    """The words of ``value`` that not all known values share; ``plain`` if there are none."""
    common = set.intersection(*(set(words) for words in known))
    return " ".join(word for word in value if word not in common) or "plain"


_DISTINGUISHING: tuple[tuple[Callable[[Frame], Any], Callable[[Any, list[Any]], str]], ...] = (
    (_number("EchoTime"), _numbered("TE", "ms")),
    (_number("EchoNumbers"), _numbered("echo")),
    (_words("ComplexImageComponent"), _differing_words),
    (_words("ImageType"), _differing_words),
    (_b_value, _numbered("b")),
    (_direction, _ranked("direction")),
    (_number("InversionTime"), _numbered("TI", "ms")),
    (_number("FlipAngle"), _numbered("flip")),
    (_number("KVP"), _numbered("kVp")),
    (_words("ConvolutionKernel"), _differing_words),
    (_number("TemporalPositionIdentifier"), _numbered("time")),
    (_number("AcquisitionNumber"), _numbered("acquisition")),
    (_number("TriggerTime"), _numbered("trigger", "ms")),
)
"""Fields that distinguish acquisitions, in the order in which they are tried, and their names."""
