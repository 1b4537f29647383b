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
from medsegdiff.data.dicom.flat import flat_geometry, is_flat
from medsegdiff.data.dicom.frames import Frame, read_frames
from medsegdiff.data.dicom.geometry import Stack, stack_of
from medsegdiff.data.dicom.headers import DAMAGED, text
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
    gives a sheared affine. ``sources`` are the files in the order of the slices, each once. An
    image that has no place in the body, such as a radiograph, is (columns, rows).

    Raises:
        InputError: files of it cannot be read; a header is damaged or lacks geometry; slices differ
            in size, orientation or spacing; a slice is missing, twice there, or out of line; pixels
            cannot be decoded.
    """
    if series.damage:
        remedy = "Fetch them again, or move them elsewhere to go without them"
        raise InputError(series, series.damage, remedy)
    try:
        frames = _frames(series)
        if len(frames) == 1 and is_flat(frames[0].header):
            return _flat(frames[0], series)
        notes = series.notes + _check_frames(frames, series)
        stack = stack_of(frames, series)
        frames = [frames[number] for number in stack.order]
        even, found = _made_even(stack, series)
        notes += found + _inverted(frames)
        values = read_pixels(frames, series)
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or textwrap.shorten(str(error), 100)
        rule = f"its headers cannot be understood ({reason})"
        raise InputError(series, rule, "Give the original series") from None
    if len(even.along) != len(stack.along) or not stack.even:
        values = interpolate(values, stack.along, even.along)
    sources = tuple(dict.fromkeys(frame.file for frame in frames))
    return values, Geometry(values.shape, even.affine, sources=sources, notes=notes)


def _flat(frame: Frame, series: Series) -> tuple[NDArray[np.float32], Geometry]:
    """An image that has no place in the body."""
    geometry = flat_geometry(frame)
    values = read_pixels([frame], series)[:, :, 0]
    return values, replace(geometry, notes=series.notes + geometry.notes + _inverted([frame]))


def _inverted(frames: Sequence[Frame]) -> tuple[str, ...]:
    kinds = {str(frame.header.get("PhotometricInterpretation")) for frame in frames}
    told = "its low values are meant to be shown bright (MONOCHROME1): kept as stored"
    return (told,) if "MONOCHROME1" in kinds else ()


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
    if stack.rounding:
        notes.append(
            f"positions of its slices are rounded to {stack.rounding:g} mm: they are taken to be "
            f"evenly spaced, {np.diff(stack.along).mean():.3f} mm apart"
        )
    if stack.even:
        return stack, tuple(notes)
    if series.uneven == "refuse":
        check_even(stack, series)
    even, note = even_stack(stack, series)
    return replace(even, order=stack.order), (*notes, note)


def _check_frames(frames: Sequence[Frame], series: Series) -> tuple[str, ...]:
    """Refuse frames that make no volume; a note where they are odd."""
    for frame in frames:
        if int(frame.header.get("SamplesPerPixel") or 1) > 1:
            rule = "a colour image, where one value per pixel is needed"
            raise InputError(series, rule, "Give the original series")
        if frame.count > 1 and not frame.groups:
            rule = "a multi-frame image whose frames have no place of their own"
            remedy = "Give the original series, or save each frame as a picture (PNG)"
            raise InputError(series, rule, remedy)
        missing = [tag for tag in _NEEDED if not frame.get(tag)]
        if missing:
            rule = f"its headers lack {', '.join(missing)}"
            raise InputError(series, rule, "Give the original series or a NIfTI file")
    files = {frame.file: text(frame.header, "SOPInstanceUID") for frame in frames}
    if len(files) > 2 and len(set(files.values())) == 1:
        return ("all its images have one identifier: no DICOM object can refer to them",)
    twice = [uid for uid, count in Counter(files.values()).items() if uid and count > 1]
    if twice:
        rule = f"{len(twice)} of its images are there twice, with different content"
        raise InputError(series, rule, "Keep one of each, or fetch the series again")
    return ()
