"""NIfTI with a damaged header or damaged bytes; what is accepted is what nibabel reads."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from medsegdiff.core.types import LPS_TO_RAS, Geometry
from medsegdiff.data.images import read_geometry, read_image
from tests.fuzz.isolation import Attempt
from tests.fuzz.mutations import damaged

HEADER = 352
_TYPES = (np.uint8, np.int16, np.float32, np.float64, np.int32, np.uint16)
_SHAPES = ((5, 4, 3), (6, 5), (4, 3, 2, 2), (1, 6, 5, 7))


def attempt_nifti(_: Path) -> Attempt:
    """Images of several types, shapes and kinds of the format."""
    images = [
        _image(np.random.default_rng(n), n, shape, dtype)
        for n, (shape, dtype) in enumerate((s, t) for s in _SHAPES for t in _TYPES)
    ]

    def attempt(rng: np.random.Generator, folder: Path) -> bool:
        content = images[int(rng.integers(len(images)))]
        packed = rng.random() < 0.4
        if not packed or rng.random() < 0.7:
            content = damaged(content, rng, HEADER)
        path = folder / ("x.nii.gz" if packed else "x.nii")
        if packed:
            content = gzip.compress(content, mtime=0)
            content = content if rng.random() < 0.5 else damaged(content, rng)
        path.write_bytes(content)
        values, geometry = read_image(path)
        np.testing.assert_array_equal(geometry.affine, read_geometry(path).affine)
        if not _begins_within_its_header(path):
            _compare_with_nibabel(path, values, geometry)
            _compare_with_itk(path, values, geometry)
        return True

    return attempt


def _image(rng: np.random.Generator, number: int, shape: tuple[int, ...], dtype: type) -> bytes:
    affine = np.diag([-0.8, 1.3, 2.5, 1.0])
    affine[:3, 3] = rng.normal(0, 20, 3)
    kind = nib.Nifti2Image if number % 5 == 4 else nib.Nifti1Image
    image = kind((100 * rng.random(shape)).astype(dtype), affine)
    if number % 3:
        image.header.set_slope_inter(*((0.5, -3.0) if number % 3 == 1 else (1.0, 0.0)))
    image.set_qform(affine, code=1)
    if number % 2:
        image.set_sform(None, code=0)
    return bytes(image.to_bytes())


def _begins_within_its_header(path: Path) -> bool:
    """Whether the values would be the header's own bytes; the other readers take them for it."""
    try:
        image = nib.load(path)
    except Exception:
        return False
    return bool(image.dataobj.offset < image.header.sizeof_hdr)


def _compare_with_nibabel(path: Path, values: np.ndarray, geometry: Geometry) -> None:
    try:
        image = nib.load(path)
    except Exception:
        return  # ours mends what nibabel refuses
    expected = np.asanyarray(image.dataobj)
    if expected.ndim == 4 and expected.shape[0] == 1 and values.ndim == 3 != expected[..., 0].ndim:
        expected = expected[0]
    while expected.ndim > values.ndim and 1 in expected.shape:
        expected = expected.squeeze(-1 if expected.shape[-1] == 1 else 0)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(geometry.affine, image.affine)
    assert values.shape[: len(geometry.shape)] == geometry.shape


def _compare_with_itk(path: Path, values: np.ndarray, geometry: Geometry) -> None:
    """A second reader, of three axes with numbers of one channel.

    It takes what is not finite for 0; a slope below 2e-16 for none, and then the intercept alone,
    where the format has neither; and the size of voxels from ``pixdim`` whatever the sform says.
    Without a form it guesses another orientation, and it turns axes of absurd length. Of two forms
    that contradict each other it takes the qform, or parts of both: then nibabel alone is the
    second reader.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
    except RuntimeError:
        return
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1 or values.ndim != 3:
        return
    found = sitk.GetArrayFromImage(image).transpose()
    assert found.shape == values.shape
    finite = np.isfinite(values)
    try:
        other = nib.load(path)
        slope, qform = float(image.GetMetaData("scl_slope")), other.header.get_qform()
    except Exception:
        return  # ours mends what nibabel refuses
    if abs(slope) > np.finfo(float).eps:
        np.testing.assert_allclose(found[finite], values[finite], rtol=1e-5, atol=1e-30)
    if any("guess" in note for note in geometry.notes):
        return
    if not np.allclose(image.GetSpacing(), geometry.spacing, rtol=1e-3):
        return
    if max(geometry.spacing) > 1e3 or min(geometry.spacing) < 1e-3:
        return
    itk = np.eye(4)
    itk[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    itk[:3, 3] = image.GetOrigin()
    if not np.isfinite(qform).all():
        return  # it takes what is not finite for 0
    forms = [form[0] for form in (geometry.sform, geometry.qform) if form]
    if len(forms) == 2 and not np.allclose(forms[0], forms[1], rtol=1e-3, atol=1e-3):
        return
    np.testing.assert_allclose(LPS_TO_RAS @ itk, geometry.affine, rtol=1e-3, atol=1e-3)
