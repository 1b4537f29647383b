"""DICOM series with damaged headers, fields or pixels; what is accepted is what pydicom reads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from medsegdiff.core.types import LPS_TO_RAS, Geometry
from medsegdiff.data.dicom import find_series, read_series
from medsegdiff.phantoms.cohort import write_dicom_series
from tests.dicom_sources import write_enhanced
from tests.fuzz.isolation import Attempt
from tests.fuzz.mutations import damaged, odd_value

_AFFINE = np.array(
    [[-0.8, 0.0, 0.0, 10.0], [0.0, -1.3, 0.0, 20.0], [0.0, 0.0, 2.5, -30.0], [0.0, 0.0, 0.0, 1.0]]
)
_HEADER = 1200  # bytes


def attempt_dicom(folder: Path) -> Attempt:
    """A series of four files, the same compressed, and one enhanced file."""
    volume = np.random.default_rng(0).integers(0, 3000, (7, 6, 4)).astype(np.uint16)
    plain = [file.read_bytes() for file in write_dicom_series(volume, _AFFINE, folder / "plain")]
    write_enhanced(folder / "enhanced.dcm")
    series = [plain, [_compressed(one) for one in plain], [(folder / "enhanced.dcm").read_bytes()]]

    def attempt(rng: np.random.Generator, folder: Path) -> bool:
        files = list(series[int(rng.integers(len(series)))])
        one = int(rng.integers(len(files)))
        if rng.random() < 0.5:
            files[one] = damaged(files[one], rng, _HEADER)
        else:
            files = _with_odd_fields(files, one, rng)
        for number, content in enumerate(files):
            (folder / f"{number}.dcm").write_bytes(content)
        for found in find_series(folder):
            values, geometry = read_series(found)
            _compare_with_pydicom(values, geometry)
        return True

    return attempt


def _compressed(content: bytes) -> bytes:
    instance = pydicom.dcmread(io.BytesIO(content))
    instance.compress(RLELossless)
    return _written(instance)


def _elements(instance: Any) -> list[Any]:
    """All elements but the pixels, those in sequences too."""
    found = []
    for element in instance:
        found.append(element)
        if element.VR == "SQ" and not isinstance(element.value, str):
            found += [inner for item in element.value for inner in _elements(item)]
    return [element for element in found if element.keyword not in ("", "PixelData")]


def _written(instance: Any) -> bytes:
    buffer = io.BytesIO()
    instance.save_as(buffer)
    return buffer.getvalue()


def _with_odd_fields(files: list[bytes], one: int, rng: np.random.Generator) -> list[bytes]:
    """The files with one or two fields changed, in one of them or in all."""
    instances = [pydicom.dcmread(io.BytesIO(content)) for content in files]
    for _ in range(int(rng.integers(1, 3))):
        elements = _elements(instances[one])
        keyword = elements[int(rng.integers(len(elements)))].keyword
        kind, value = int(rng.integers(4)), odd_value(rng)
        scale = [0.0, -1.0, 0.5, 2.0, 1e-8, 1e8, 1.01][int(rng.integers(7))]
        for instance in instances if rng.random() < 0.5 else instances[one : one + 1]:
            element = next((e for e in _elements(instance) if e.keyword == keyword), None)
            if element is not None:
                _change(instance, element, kind, value, scale)
    written = []
    for content, instance in zip(files, instances, strict=True):
        try:
            written.append(_written(instance))
        except Exception:  # such a value cannot be written
            written.append(content)
    return written


def _change(instance: Any, element: Any, kind: int, value: Any, scale: float) -> None:
    if kind == 0 and element.tag in instance:
        del instance[element.tag]
        return
    try:
        if kind == 1:
            several = element.value if element.VM > 1 else [element.value]
            changed = [f"{float(v) * scale:.8g}" for v in several]
            new: Any = [float(v) for v in changed] if element.VR in ("FD", "FL") else changed
            new = [int(float(v)) for v in changed] if element.VR in ("US", "UL", "SS") else new
            element.value = new if element.VM > 1 else new[0]
        else:
            element.value = value
    except Exception:  # pydicom refuses the value by itself
        element._value = str(value)[:64]


def _compare_with_pydicom(values: np.ndarray, geometry: Geometry) -> None:
    assert values.shape == geometry.shape
    if values.ndim == 2 or len(geometry.sources) not in (1, values.shape[2]):
        return
    for k, file in enumerate(geometry.sources):
        instance = pydicom.dcmread(file, force=True)
        pixels = _stored(instance).reshape(-1, int(instance.Rows), int(instance.Columns))
        if len(geometry.sources) == 1 and len(pixels) != 1:
            _compare_frames(pixels, instance, values, geometry)
            return
        slope = float(instance.get("RescaleSlope", None) or 1.0)
        intercept = float(instance.get("RescaleIntercept", None) or 0.0)
        np.testing.assert_array_equal(
            values[:, :, k], (pixels[0] * slope + intercept).astype(np.float32).T
        )
        _compare_place(geometry, k, instance.ImagePositionPatient, instance)


def _compare_frames(pixels: Any, instance: Any, values: np.ndarray, geometry: Geometry) -> None:
    """Frames of an enhanced image: the slice nearest to where each frame says that it lies."""
    shared = instance.SharedFunctionalGroupsSequence[0]
    groups = instance.PerFrameFunctionalGroupsSequence
    assert len(groups) == values.shape[2]
    for frame, group in zip(pixels, groups, strict=False):
        if "PlanePositionSequence" not in group:
            return
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        voxel = np.linalg.inv(geometry.affine) @ LPS_TO_RAS @ [*position, 1.0]
        k = int(np.rint(voxel[2]))
        if 0 <= k < values.shape[2] and "PixelValueTransformationSequence" not in shared:
            np.testing.assert_array_equal(values[:, :, k], frame.astype(np.float32).T)


def _stored(instance: Any) -> np.ndarray:
    """The stored values, by the bits that the header names."""
    if "TransferSyntaxUID" not in instance.file_meta:  # pydicom wants to be told
        explicit = not instance.original_encoding[0]
        instance.file_meta.TransferSyntaxUID = (
            ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian
        )
    pixels = instance.pixel_array
    allocated, stored = pixels.dtype.itemsize * 8, int(instance.BitsStored)
    if allocated == stored or instance.file_meta.TransferSyntaxUID.is_compressed:
        return np.asarray(pixels)
    shift = int(instance.get("HighBit", stored - 1)) + 1 - stored
    bits = (pixels.astype(np.int64) >> shift) & ((1 << stored) - 1)
    negative = (bits >> (stored - 1)) & 1 if instance.PixelRepresentation else np.zeros_like(bits)
    return np.asarray(bits - (negative << stored))


def _compare_place(geometry: Geometry, k: int, position: Any, instance: Any) -> None:
    """The first pixel's place, and the step along a row and a column (PS3.3, C.7.6.2.1.1)."""
    lps = LPS_TO_RAS @ geometry.affine
    here = lps @ [0.0, 0.0, float(k), 1.0]
    apart = 0.06 * max(geometry.spacing) + 1e-3
    assert np.abs(here[:3] - np.array(position, float)).max() <= apart
    along = np.array(instance.ImageOrientationPatient, float).reshape(2, 3)
    rows, columns = map(float, instance.PixelSpacing)
    np.testing.assert_allclose(lps[:3, 0], along[0] * columns, atol=1e-3 * columns)
    np.testing.assert_allclose(lps[:3, 1], along[1] * rows, atol=1e-3 * rows)
