"""Find the DICOM series in a folder, and read one with its geometry.

Headers are read by pydicom. The geometry is computed from them (DICOM PS3.3, C.7.6.2.1.1) rather
than taken from a reader, since readers average over a missing slice and stack what does not
belong together. Pixels, decompressed and rescaled, come from ITK.
"""

from __future__ import annotations

import hashlib
import re
import struct
import textwrap
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException, InvalidDicomError

from medsegdiff.types import Geometry, InputError

POSITION_TOLERANCE = 0.05
"""Greatest deviation of a slice from even spacing, as a fraction of that spacing."""
_ORIENTATION_TOLERANCE = 1e-3
_TAGS = [
    "SOPClassUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "PatientID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
]
_NEEDED = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
)
_NOT_IMAGES = {"SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "PR", "KO", "REG", "DOC", "FID", "RWV"}
_DAMAGED = (
    InvalidDicomError,
    BytesLengthException,
    NotImplementedError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    OSError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What pydicom raises while it reads a file, or later decodes a field, that is damaged."""
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts to the left and to the back


@dataclass(frozen=True)
class Series:
    """The image instances of one DICOM series, in the order of their file names.

    Attributes:
        files: one per slice.
        study_uid: StudyInstanceUID.
        uid: SeriesInstanceUID.
        number: SeriesNumber; None where the header lacks it.
        description: SeriesDescription, or nothing.
        modality: such as MR or CT.
        patient_id: PatientID; never to be written or shown.
        source: what the user gave. Errors name it and the number, and neither the files nor their
            folders, which may be called after the patient.
    """

    files: tuple[Path, ...]
    study_uid: str
    uid: str
    number: int | None
    description: str
    modality: str
    patient_id: str = field(repr=False)
    source: str

    def __str__(self) -> str:
        return f"{self.source}, series {'?' if self.number is None else self.number}"


def find_series(path: str | Path, source: str | Path | None = None) -> list[Series]:
    """All image series at or below a path, by study, number and identifier.

    Files are known by their content, not their names. Segmentations, reports and other objects
    without an image of their own are left out.

    Args:
        path: a folder, searched with its subfolders, or one DICOM file.
        source: what the user gave if it is not the path itself, such as a zip.

    Raises:
        InputError: no such path, or no DICOM image there.
    """
    top = Path(path).expanduser()
    source = str(source or top)
    if not top.exists():
        raise InputError(source, "no such file or folder", "Check the path")
    files = sorted(f for f in top.rglob("*") if f.is_file()) if top.is_dir() else [top]
    groups: dict[tuple[str, str], list[tuple[Path, Any]]] = defaultdict(list)
    for file in files:
        try:
            header = _read_header(file)
        except _DAMAGED:
            continue
        if _is_image(header):
            key = (_text(header, "StudyInstanceUID"), _text(header, "SeriesInstanceUID"))
            groups[key].append((file, header))
    if not groups:
        what = "holds no DICOM image" if top.is_dir() else "is not a DICOM image"
        raise InputError(source, what, "Give a NIfTI file or a folder with a DICOM series")
    series = [_series(members, source) for members in groups.values()]
    return sorted(series, key=lambda s: (s.study_uid, s.number is None, s.number or 0, s.uid))


def read_series(series: Series) -> tuple[NDArray[np.float32], Geometry]:
    """Values (columns, rows, slices) after rescaling, and their geometry.

    Slices are ordered along the normal, cross product of row and column direction.

    Raises:
        InputError: a header is damaged or lacks geometry; slices differ in size, orientation or
            spacing; a slice is missing, twice there, or out of line; multi-frame or colour images.
    """
    try:
        headers = [_read_header(file) for file in series.files]
        _check_headers(headers, series)
        orientation, spacing = _check_uniform(headers, series)
        positions = _vectors(headers, "ImagePositionPatient", 3)
        normal = np.cross(orientation[0], orientation[1])
        order, step = _stack(positions, normal, headers[0], series)
        _check_complete(headers[0], series)
    except _DAMAGED as error:
        reason = getattr(error, "strerror", None) or textwrap.shorten(str(error), 100)
        rule = f"its headers cannot be understood ({reason})"
        raise InputError(series, rule, "Give the original series") from None
    lps = np.eye(4)
    lps[:3, 0] = orientation[0] * spacing[1]  # PixelSpacing: between rows, then between columns
    lps[:3, 1] = orientation[1] * spacing[0]
    lps[:3, 2], lps[:3, 3] = step, positions[order[0]]
    files = tuple(series.files[i] for i in order)
    pixels = _read_pixels(files, (headers[0].Rows, headers[0].Columns), series)
    return pixels, Geometry(pixels.shape, _TO_RAS @ lps, sources=files)


def case_id(series: Series, salt: str) -> str:
    """Salted hash of the series' identifiers, and its number (0: none); nothing of the patient.

    The same series and salt always give the same id, and other series give others.
    """
    digest = hashlib.sha256(f"{salt}/{series.study_uid}/{series.uid}".encode()).hexdigest()
    return f"{digest[:12]}_{series.number if series.number is not None else 0}"


def _read_header(file: Path) -> Any:
    return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)


def _is_image(header: Any) -> bool:
    readable = all(tag in header for tag in ("SeriesInstanceUID", "Rows", "Columns"))
    return readable and _text(header, "Modality").upper() not in _NOT_IMAGES


def _series(members: list[tuple[Path, Any]], source: str) -> Series:
    first = members[0][1]
    number = _text(first, "SeriesNumber")
    return Series(
        files=tuple(file for file, _ in members),
        study_uid=_text(first, "StudyInstanceUID"),
        uid=_text(first, "SeriesInstanceUID"),
        number=int(number) if re.fullmatch(r"[+-]?\d+", number) else None,
        description=_text(first, "SeriesDescription"),
        modality=_text(first, "Modality"),
        patient_id=_text(first, "PatientID"),
        source=source,
    )


def _text(header: Any, tag: str) -> str:
    """A header's field as text; empty where it is missing, empty or damaged."""
    try:
        value = header.get(tag)
        return "" if value is None else str(value).strip()
    except _DAMAGED:
        return ""


def _vectors(headers: Iterable[Any], tag: str, length: int) -> NDArray[np.float64]:
    """A field of all headers (slices, length).

    Raises:
        ValueError: it has another length, or is not finite.
    """
    vectors = np.array([header[tag].value for header in headers], dtype=np.float64)
    if vectors.shape[1:] != (length,) or not np.isfinite(vectors).all():
        raise ValueError(f"{tag} must have {length} finite values")
    return vectors


def _check_headers(headers: Iterable[Any], series: Series) -> None:
    for header in headers:
        if int(header.get("NumberOfFrames") or 1) > 1:
            rule = "multi-frame DICOM is not read"
            raise InputError(series, rule, "Convert it to NIfTI, for instance with dcm2niix")
        if int(header.get("SamplesPerPixel") or 1) > 1:
            rule = "a colour image, where one value per pixel is needed"
            raise InputError(series, rule, "Give the original series")
        missing = [tag for tag in _NEEDED if not header.get(tag)]
        if missing:
            rule = f"its headers lack {', '.join(missing)}"
            raise InputError(series, rule, "Give the original series or a NIfTI file")


def _check_uniform(
    headers: list[Any], series: Series
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column direction (2, 3), and row and column spacing (2,), equal in all slices."""
    sizes = {(int(header.Rows), int(header.Columns)) for header in headers}
    if len(sizes) > 1:
        raise InputError(series, f"slices differ in size: {sorted(sizes)}", "Separate them")
    orientations = _vectors(headers, "ImageOrientationPatient", 6)
    if np.ptp(orientations, axis=0).max() > _ORIENTATION_TOLERANCE:
        rule = "slices differ in orientation (a localiser, or several stacks in one series)"
        raise InputError(series, rule, "Give a series of parallel slices")
    directions = orientations[0].reshape(2, 3)
    if not np.allclose(directions @ directions.T, np.eye(2), atol=_ORIENTATION_TOLERANCE):
        rule = "row and column directions are not at right angles and of length 1"
        raise InputError(series, rule, "Give the original series")
    spacings = _vectors(headers, "PixelSpacing", 2)
    if np.ptp(spacings, axis=0).max() > 1e-4 or spacings.min() <= 0:
        rule = f"pixel spacing must be positive and equal in all slices, not {spacings.tolist()}"
        raise InputError(series, rule, "Separate them")
    return directions, spacings[0]


def _stack(
    positions: NDArray[np.float64], normal: NDArray[np.float64], header: Any, series: Series
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Order of the slices along the normal, and the step (3,) in mm from each to the next."""
    if len(positions) == 1:
        thickness = float(header.get("SliceThickness") or 1.0)
        if not 0 < thickness < np.inf:
            raise ValueError(f"SliceThickness is {thickness}")
        return np.array([0]), normal * thickness
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    typical = float(np.median(gaps))
    if gaps.min() < max(1e-3, POSITION_TOLERANCE * typical):
        rule = "two slices lie at one place (several time points or echoes in one series?)"
        raise InputError(series, rule, "Give one volume")
    uneven = np.flatnonzero(np.abs(gaps - typical) > POSITION_TOLERANCE * typical)
    if len(uneven):
        where = int(uneven[0])
        rule = (
            f"slices are not evenly spaced: {gaps[where]:.2f} mm between slices {where + 1} and "
            f"{where + 2}, elsewhere {typical:.2f} mm (is a slice missing?)"
        )
        raise InputError(series, rule, "Fetch the missing slices, or resample to even spacing")
    step = (positions[order[-1]] - positions[order[0]]) / (len(positions) - 1)
    even = positions[order[0]] + np.arange(len(positions))[:, None] * step
    if np.linalg.norm(positions[order] - even, axis=1).max() > POSITION_TOLERANCE * typical:
        rule = "slices do not lie on one straight line"
        raise InputError(series, rule, "Give a series of one stack")
    return order, step


def _check_complete(header: Any, series: Series) -> None:
    """ITK fills what a truncated file lacks, without a word."""
    values = int(header.Rows) * int(header.Columns)
    for file in series.files:
        pixels = pydicom.dcmread(file, specific_tags=["PixelData", "BitsAllocated"])
        syntax = pixels.file_meta.get("TransferSyntaxUID")
        if syntax is None or syntax.is_compressed:
            continue
        needed = values * int(pixels.get("BitsAllocated") or 16) // 8
        if len(pixels.get("PixelData") or b"") < needed:
            raise InputError(series, f"{_place(file, series)} is truncated", "Fetch it again")


def _read_pixels(
    files: tuple[Path, ...], size: tuple[int, int], series: Series
) -> NDArray[np.float32]:
    """(columns, rows, slices), of slices of that many rows and columns."""
    import itk  # takes seconds to import and only DICOM needs it

    slices = []
    for file in files:
        try:
            slices.append(itk.array_from_image(itk.imread(str(file), itk.F)).reshape(size))
        except (RuntimeError, ValueError, MemoryError) as error:
            rule = f"pixels of {_place(file, series)} cannot be read"
            raise InputError(series, rule, "Export it again") from error
    return np.ascontiguousarray(np.stack(slices).transpose(2, 1, 0), dtype=np.float32)


def _place(file: Path, series: Series) -> str:
    return f"file {series.files.index(file) + 1} of {len(series.files)} (by name)"
