"""A variance map that is read back is the NIfTI's, at the slices it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import find_series, read_series
from medsegdiff.writers.nifti import write_nifti
from medsegdiff.writers.parametric_map import write_variance_map
from medsegdiff.writers.segments import segments_of
from tests.dicom_sources import SHAPE, write_enhanced, write_series

(SEGMENT,) = segments_of({0: "background", 1: "Liver"})


def variance(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return (0.25 * np.random.default_rng(8).random(shape)).astype(np.float32)


def written(folder: Path, values: NDArray[np.float32], geometry: Geometry) -> Any:
    write_variance_map(folder / "variance.dcm", values, geometry, SEGMENT)
    return pydicom.dcmread(folder / "variance.dcm")


def assert_is_the_nifti(found: Any, nifti: Path) -> None:
    """Every frame's values are those of the NIfTI at the frame's place."""
    image = nib.load(nifti)
    values = np.asarray(image.dataobj)
    shared = found.SharedFunctionalGroupsSequence[0]
    along = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    rows, columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    pixels = found.pixel_array
    assert pixels.dtype == np.float32
    seen = set()
    for frame, group in zip(pixels, found.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        corner = position + 2 * rows * along[3:] + 3 * columns * along[:3]
        ras = np.array([-corner[0], -corner[1], corner[2], 1.0])
        voxel = np.rint(np.linalg.inv(image.affine) @ ras)[:3].astype(int)
        assert tuple(voxel[:2]) == (3, 2)
        np.testing.assert_array_equal(frame.T, values[:, :, voxel[2]])
        seen.add(int(voxel[2]))
    assert seen == set(range(values.shape[2]))


@pytest.mark.parametrize("source", ["series", "enhanced"])
def test_values_are_those_of_the_nifti(tmp_path: Path, source: str) -> None:
    folder = tmp_path / source
    geometry = write_series(folder) if source == "series" else write_enhanced(folder)
    values = variance(SHAPE)
    write_nifti(tmp_path / "variance.nii.gz", values, geometry, dtype="float32")
    found = written(tmp_path, values, geometry)
    assert_is_the_nifti(found, tmp_path / "variance.nii.gz")


def test_what_a_viewer_is_told(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    found = written(tmp_path, variance(SHAPE), geometry)
    source = pydicom.dcmread(geometry.sources[0])
    assert found.SOPClassUID == pydicom.uid.ParametricMapStorage
    assert found.StudyInstanceUID == source.StudyInstanceUID
    assert found.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert found.SeriesDescription == "Variance: Liver"
    (mapping,) = found.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1.0, 0.0)
    (unit,) = mapping.MeasurementUnitsCodeSequence
    assert (unit.CodeValue, unit.CodingSchemeDesignator) == ("1", "UCUM")
    (quantity,) = mapping.QuantityDefinitionSequence
    assert quantity.ConceptCodeSequence[0].CodeMeaning == "Variance"
    assert "Liver" in mapping.LUTExplanation
    referred = {
        item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for item in found.PerFrameFunctionalGroupsSequence
    }
    assert referred == {pydicom.dcmread(file).SOPInstanceUID for file in geometry.sources}


def test_values_and_source_are_checked(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    path = tmp_path / "variance.dcm"
    with pytest.raises(ValueError, match=r"\[0, 0.25\]"):
        write_variance_map(path, variance(SHAPE) + 0.1, geometry, SEGMENT)
    with pytest.raises(ValueError, match=r"\(7, 6, 4\)"):
        write_variance_map(path, variance((6, 7, 4)), geometry, SEGMENT)
    with pytest.raises(InputError, match="refers to the DICOM images"):
        write_variance_map(path, variance(SHAPE), Geometry(SHAPE, np.eye(4)), SEGMENT)
    assert not path.exists()


@pytest.mark.filterwarnings("ignore:The string .* is unlikely to represent")
def test_real_series(tmp_path: Path, shared_data: Path) -> None:
    (series,) = find_series(shared_data / "dicom" / "mr_brain" / "11_HCropVolume")
    _, geometry = read_series(series)
    values = variance(geometry.shape)
    write_nifti(tmp_path / "variance.nii.gz", values, geometry, dtype="float32")
    assert_is_the_nifti(written(tmp_path, values, geometry), tmp_path / "variance.nii.gz")
