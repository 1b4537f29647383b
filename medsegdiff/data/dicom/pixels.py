"""Decoded, rescaled pixels of frames.

Values are those of the file: MONOCHROME1 is not inverted, and padding is not replaced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import iter_pixels

from medsegdiff.core.errors import InputError
from medsegdiff.core.limits import check_size
from medsegdiff.core.worker_process import WorkerError
from medsegdiff.data.dicom.decoder import Decoder, decoding, needs_worker
from medsegdiff.data.dicom.frames import Frame
from medsegdiff.data.dicom.headers import DAMAGED, open_dicom
from medsegdiff.data.dicom.series import Series


def read_pixels(frames: Sequence[Frame], series: Series) -> NDArray[np.float32]:
    """Values (columns, rows, slices) float32 of frames of one size, in their order.

    Raises:
        InputError: a file is truncated, or cannot be decoded; the values would be too many.
        DAMAGED: a header is broken.
    """
    rows, columns = frames[0].size
    check_size(series, 4.0 * rows * columns * len(frames))
    values = np.empty((columns, rows, len(frames)), dtype=np.float32)
    of_file: dict[Path, dict[int, int]] = defaultdict(dict)  # frame's number -> slice
    for k, frame in enumerate(frames):
        of_file[frame.file][frame.number] = k
    with decoding() as decoder:
        for file, slices in of_file.items():
            for k, plane in _planes(file, slices, frames, series, decoder):
                values[:, :, k] = _rescaled(plane, frames[k]).T
    return values


def _planes(
    file: Path,
    slices: Mapping[int, int],
    frames: Sequence[Frame],
    series: Series,
    decoder: Decoder,
) -> Iterator[tuple[int, NDArray[Any]]]:
    """The slices that lie in a file: number of each, and its stored values (rows, columns)."""
    dataset = open_dicom(file)
    _check_complete(dataset, file, series)
    tiles = {k: frames[k].tile for k in slices.values()}
    if not any(tiles.values()):
        stored = _stored(dataset, list(slices), file, series, decoder)
        yield from zip(slices.values(), stored, strict=True)
        return
    whole = next(_stored(dataset, [0], file, series, decoder))
    yield from ((k, whole[tile.place]) for k, tile in tiles.items() if tile)


def place(file: Path, series: Series) -> str:
    """The position of a file in its series, in words, without its name."""
    return f"file {series.files.index(file) + 1} of {len(series.files)} (by name)"


def _check_complete(dataset: Any, file: Path, series: Series) -> None:
    """Refuse a truncated file; of a compressed one, the decoder checks the length.

    Of one that ends within compressed pixels, pydicom gives an empty data set.
    """
    if "Rows" not in dataset or "Columns" not in dataset:
        raise InputError(series, f"{place(file, series)} is truncated", "Fetch it again")
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_compressed:
        return
    values = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames") or 1)
    needed = values * int(dataset.get("BitsAllocated") or 16) // 8
    if len(dataset.get("PixelData") or b"") < needed:
        raise InputError(series, f"{place(file, series)} is truncated", "Fetch it again")


def _stored(
    dataset: Any, numbers: Sequence[int], file: Path, series: Series, decoder: Decoder
) -> Iterator[NDArray[Any]]:
    """The stored values (rows, columns) of the frames with these numbers, one at a time.

    Only pixels that Python or numpy unpacks are read in this process.
    """
    shape = (int(dataset.Rows), int(dataset.Columns))
    check_size(series, 4.0 * shape[0] * shape[1])  # of a mosaic, more than its slices
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    try:
        if needs_worker(dataset):
            yield from decoder.planes(file, numbers, shape)
            return
        for plane in iter_pixels(dataset, indices=list(numbers), raw=True):
            yield _unpacked(plane.reshape(shape), dataset)
    except (RuntimeError, *DAMAGED) as error:
        reason = f": {error}" if isinstance(error, WorkerError) else ""
        name = getattr(syntax, "name", "?")
        rule = f"pixels of {place(file, series)} cannot be read ({name}{reason})"
        raise InputError(series, rule, "Export it again, uncompressed") from error


def _unpacked(plane: NDArray[Any], dataset: Any) -> NDArray[Any]:
    """The stored bits of the values, with their sign, without the bits above."""
    allocated, stored = plane.dtype.itemsize * 8, int(dataset.BitsStored)
    high = int(dataset.get("HighBit", stored - 1))
    if stored == allocated or dataset.file_meta.TransferSyntaxUID.is_compressed:
        return plane
    return (plane << (allocated - 1 - high)) >> (allocated - stored)


def _rescaled(plane: NDArray[Any], frame: Frame) -> NDArray[Any]:
    """Values in the modality's units (PS3.3, C.11.1.1.2), by the frame's slope and intercept."""
    slope, intercept = frame.get("RescaleSlope"), frame.get("RescaleIntercept")
    slope = 1.0 if slope in (None, "") else float(slope)
    intercept = 0.0 if intercept in (None, "") else float(intercept)
    if slope == 0 or not np.isfinite([slope, intercept]).all():
        raise ValueError(f"RescaleSlope is {slope:g}, RescaleIntercept {intercept:g}")
    return plane if (slope, intercept) == (1.0, 0.0) else plane * slope + intercept
