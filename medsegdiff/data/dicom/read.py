"""Read the values of one series, and their geometry."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom.frames import Frame, read_frames
from medsegdiff.data.dicom.geometry import Stack, stack_of
from medsegdiff.data.dicom.headers import DAMAGED
from medsegdiff.data.dicom.pixels import read_pixels
from medsegdiff.data.dicom.resample import check_even, even_stack, interpolate
from medsegdiff.data.dicom.series import Series

_NEEDED = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
)


def read_series(series: Series) -> tuple[NDArray[np.float32], Geometry]:
    """Values (columns, rows, slices) float32 after rescaling, and their geometry.

    Slices are ordered along the normal, cross product of row and column direction. A tilted gantry
    gives a sheared affine. ``sources`` are the files in the order of the slices, each once.

    Raises:
        InputError: a header is damaged or lacks geometry; slices differ in size, orientation or
            spacing; a slice is missing, twice there, or out of line; pixels cannot be decoded.
    """
    try:
        frames = _frames(series)
        _check_frames(frames, series)
        stack = stack_of(frames, series)
        frames = [frames[number] for number in stack.order]
        even, notes = _made_even(stack, series)
        if any(str(f.header.get("PhotometricInterpretation")) == "MONOCHROME1" for f in frames):
            notes += ("its low values are meant to be shown bright (MONOCHROME1): kept as stored",)
        values = read_pixels(frames, series)
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or textwrap.shorten(str(error), 100)
        rule = f"its headers cannot be understood ({reason})"
        raise InputError(series, rule, "Give the original series") from None
    if len(even.along) != len(stack.along) or not stack.even:
        values = interpolate(values, stack.along, even.along)
    sources = tuple(dict.fromkeys(frame.file for frame in frames))
    return values, Geometry(values.shape, even.affine, sources=sources, notes=notes)


def _frames(series: Series) -> list[Frame]:
    """The frames of the series, or of its part, in the order of the files."""
    frames = [read_frames(file) for file in series.files]
    if not series.frames:
        return [frame for of_file in frames for frame in of_file]
    chosen = zip(frames, series.frames, strict=True)
    return [of_file[number] for of_file, numbers in chosen for number in numbers]


def _made_even(stack: Stack, series: Series) -> tuple[Stack, tuple[str, ...]]:
    """The grid of the volume, evenly spaced, and notes on what is unusual about it.

    Raises:
        InputError: the slices are unevenly spaced, and are not to be resampled.
    """
    notes = []
    if stack.tilted:
        notes.append(
            f"slices are shifted against each other (gantry tilt of {stack.tilt:.1f} degrees): "
            "the grid is sheared, as in the file"
        )
    if stack.even:
        return stack, tuple(notes)
    if series.uneven == "refuse":
        check_even(stack, series)
    even, note = even_stack(stack, series)
    return replace(even, order=stack.order), (*notes, note)


def _check_frames(frames: Sequence[Frame], series: Series) -> None:
    for frame in frames:
        if int(frame.header.get("SamplesPerPixel") or 1) > 1:
            rule = "a colour image, where one value per pixel is needed"
            raise InputError(series, rule, "Give the original series")
        if frame.count > 1 and not frame.groups:
            rule = "a multi-frame image whose frames have no place of their own"
            raise InputError(series, rule, "Give the original series, or convert it to NIfTI")
        missing = [tag for tag in _NEEDED if not frame.get(tag)]
        if missing:
            rule = f"its headers lack {', '.join(missing)}"
            raise InputError(series, rule, "Give the original series or a NIfTI file")
    files = {frame.file: str(frame.header.get("SOPInstanceUID") or "") for frame in frames}
    twice = [uid for uid, count in Counter(files.values()).items() if uid and count > 1]
    if twice:
        rule = f"{len(twice)} of its images are there twice, with different content"
        raise InputError(series, rule, "Keep one of each, or fetch the series again")
