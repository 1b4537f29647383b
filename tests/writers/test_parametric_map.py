"""A variance map that is read back is the NIfTI's, at the slices it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from medsegdiff import __version__
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


def test_all_that_names_a_map(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    (segment,) = segments_of({0: "background", 4: "L" * 80})
    path = tmp_path / "variance.dcm"
    assert write_variance_map(path, variance(SHAPE), geometry, segment) == ()
    found = pydicom.dcmread(path)
    said = {
        "Manufacturer": "medsegdiff",
        "ManufacturerModelName": "medsegdiff",
        "SoftwareVersions": __version__,
        "DeviceSerialNumber": "0",
        "SeriesNumber": 9014,
        "InstanceNumber": 1,
        "ContentLabel": "VARIANCE",
        "ContentDescription": ("Variance of the members' probability: " + "L" * 80)[:64],
        "SeriesDescription": ("Variance: " + "L" * 80)[:64],
        "RecognizableVisualFeatures": "NO",
        "Laterality": None,
    }
    assert {keyword: found[keyword].value or None for keyword in said} == said
    shared = found.SharedFunctionalGroupsSequence[0]
    (mapping,) = shared.RealWorldValueMappingSequence
    assert mapping.LUTLabel == "VARIANCE"
    assert mapping.LUTExplanation == ("Variance over members: " + "L" * 80)[:64]
    first, last = (
        mapping[f"DoubleFloatRealWorldValue{end}ValueMapped"].value for end in ("First", "Last")
    )
    assert (first, last) == (0.0, 0.25)
    (unit,) = mapping.MeasurementUnitsCodeSequence
    assert unit.CodeMeaning == "no units"
    (window,) = shared.FrameVOILUTSequence
    assert (float(window.WindowCenter), float(window.WindowWidth)) == (0.125, 0.25)
    assert window.VOILUTFunction == "LINEAR_EXACT"
    uids = {found.SeriesInstanceUID, found.SOPInstanceUID, found.StudyInstanceUID}
    assert len(uids) == 3 and "None" not in uids


def test_values_outside_by_rounding_are_clipped(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    values = variance(SHAPE)
    values[0, 0, 0], values[1, 0, 0] = -0.0005, 0.2505
    found = written(tmp_path, values, geometry).pixel_array
    assert found.min() == 0.0 and found.max() == 0.25
    for wrong, told in ((-0.002, "got -0.002 to"), (0.252, "to 0.252")):
        values[0, 0, 0] = wrong
        with pytest.raises(ValueError, match=r"variance must lie in \[0, 0.25\]; got") as error:
            write_variance_map(tmp_path / "b.dcm", values, geometry, SEGMENT)
        assert told in str(error.value)


def test_the_side_of_the_body_is_that_of_the_source(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    for file in geometry.sources:
        header = pydicom.dcmread(file)
        header.Laterality = "L"
        header.save_as(file)
    assert written(tmp_path, variance(SHAPE), geometry).Laterality == "L"
