"""A SEG read back by highdicom holds the mask at the slices it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from medsegdiff.data.dicom import find_series, read_series
from medsegdiff.types import Geometry, InputError
from medsegdiff.writers.dicom_seg import write_binary_seg, write_fractional_seg
from medsegdiff.writers.segments import segments_of

LABELS = {0: "background", 1: "Anterior", 2: "Posterior"}
HIPPOCAMPUS = {
    "category": ("91723000", "SCT", "Anatomical Structure"),
    "type": ("5366008", "SCT", "Hippocampus"),
}
SEGMENTS = segments_of(LABELS, {1: HIPPOCAMPUS})
SHAPE = (7, 6, 4)  # columns, rows, slices

# Array axes as (DICOM axis, direction): as read, permuted, flipped, both.
LAYOUTS = {
    "as read": ((0, 1), (1, 1), (2, 1)),
    "permuted": ((2, 1), (0, 1), (1, 1)),
    "flipped": ((0, -1), (1, 1), (2, -1)),
    "both": ((1, -1), (2, -1), (0, 1)),
}


def write_series(folder: Path) -> Geometry:
    """An oblique, anisotropic series of one study, in files whose names do not tell the order."""
    angle = np.radians(25)
    along_row = np.array([np.cos(angle), np.sin(angle), 0.0])
    along_column = np.array([0.0, 0.0, -1.0])
    normal = np.cross(along_row, along_column)
    origin, spacing, gap = np.array([-31.5, 12.0, 44.0]), (0.9, 0.7), 3.0
    study, series, frame = (pydicom.uid.generate_uid() for _ in range(3))
    folder.mkdir()
    files = []
    for k in range(SHAPE[2]):
        ds = pydicom.Dataset()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
        uid = pydicom.uid.generate_uid()
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.Modality, ds.PatientID, ds.SeriesNumber, ds.InstanceNumber = "MR", "P1", 3, k + 1
        ds.ImagePositionPatient = [f"{v:.8g}" for v in origin + k * gap * normal]
        ds.ImageOrientationPatient = [f"{v:.8g}" for v in (*along_row, *along_column)]
        ds.PixelSpacing, ds.SliceThickness = list(spacing), gap
        ds.Columns, ds.Rows = SHAPE[:2]
        ds.BitsAllocated = ds.BitsStored = 16
        ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 0, 1
        ds.PhotometricInterpretation = "MONOCHROME2"
        ds.PixelData = np.full((SHAPE[1], SHAPE[0]), k, dtype=np.uint16).tobytes()
        files.append(folder / f"{(3 * k + 1) % SHAPE[2]}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = along_row * spacing[1], along_column * spacing[0]
    lps[:3, 2], lps[:3, 3] = normal * gap, origin
    return Geometry(SHAPE, np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps, sources=tuple(files))


def laid_out(geometry: Geometry, layout: tuple[tuple[int, int], ...]) -> Geometry:
    """The same space with other array axes."""
    new = np.zeros((4, 4))
    new[3, 3] = 1.0
    for i, (axis, sign) in enumerate(layout):
        new[axis, i] = sign
        new[axis, 3] += geometry.shape[axis] - 1 if sign < 0 else 0
    shape = tuple(geometry.shape[axis] for axis, _ in layout)
    return Geometry(shape, geometry.affine @ new, sources=geometry.sources)


def as_read(array: NDArray[Any], layout: tuple[tuple[int, int], ...]) -> NDArray[Any]:
    """Undoes :func:`laid_out` on an array: back to columns, rows, slices."""
    flipped = array[tuple(slice(None, None, sign) for _, sign in layout)]
    return flipped.transpose(np.argsort([axis for axis, _ in layout]))


def read_back(path: Path, geometry: Geometry) -> NDArray[Any]:
    """(columns, rows, slices, segments) of a SEG, by its references to the source instances."""
    seg = hd.seg.segread(path)
    uids = [pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID for f in geometry.sources]
    pixels = seg.get_pixels_by_source_instance(
        uids, rescale_fractional=True, assert_missing_frames_are_empty=True
    )
    return pixels.transpose(2, 1, 0, 3).astype(np.float64)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_mask_lies_at_its_slices(tmp_path: Path, layout: tuple[tuple[int, int], ...]) -> None:
    geometry = write_series(tmp_path / "series")
    ours = laid_out(geometry, layout)
    label_map = np.random.default_rng(3).integers(0, 3, ours.shape)
    write_binary_seg(tmp_path / "seg.dcm", label_map, ours, SEGMENTS)
    read = read_back(tmp_path / "seg.dcm", geometry)
    expected = as_read(label_map, layout)
    for number in (1, 2):
        np.testing.assert_array_equal(read[..., number - 1], expected == number)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_probabilities_lie_at_their_slices(
    tmp_path: Path, layout: tuple[tuple[int, int], ...]
) -> None:
    geometry = write_series(tmp_path / "series")
    ours = laid_out(geometry, layout)
    means = np.random.default_rng(4).random((2, *ours.shape))
    write_fractional_seg(tmp_path / "mean.dcm", means, ours, SEGMENTS)
    read = read_back(tmp_path / "mean.dcm", geometry)
    for k in (0, 1):
        np.testing.assert_allclose(read[..., k], as_read(means[k], layout), atol=0.5 / 255 + 1e-6)


def test_what_a_viewer_is_told(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    write_binary_seg(tmp_path / "seg.dcm", np.full(SHAPE, 1), geometry, SEGMENTS)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    source = pydicom.dcmread(geometry.sources[0])
    assert (seg.Modality, seg.SegmentationType) == ("SEG", "BINARY")
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    first, second = seg.SegmentSequence
    assert [first.SegmentLabel, second.SegmentLabel] == ["Anterior", "Posterior"]
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "5366008"
    assert second.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99MEDSEGDIFF"
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "medsegdiff"
    family = algorithm.AlgorithmFamilyCodeSequence[0]
    assert (family.CodeValue, family.CodeMeaning) == ("123110", "Artificial Intelligence")
    assert len(seg.PerFrameFunctionalGroupsSequence) == SHAPE[2]  # the empty segment has no frames


def test_an_empty_mask_is_written(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    write_binary_seg(tmp_path / "seg.dcm", np.zeros(SHAPE, int), geometry, SEGMENTS)
    assert not read_back(tmp_path / "seg.dcm", geometry).any()


def test_only_dicom_has_a_seg(tmp_path: Path) -> None:
    nifti = tmp_path / "image.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.float32), np.eye(4)), nifti)
    for sources in ((nifti,), ()):
        geometry = Geometry(SHAPE, np.eye(4), sources=sources)
        with pytest.raises(InputError, match="refers to the DICOM images"):
            write_binary_seg(tmp_path / "seg.dcm", np.zeros(SHAPE, int), geometry, SEGMENTS)
    assert not (tmp_path / "seg.dcm").exists()


def test_a_grid_that_is_not_the_series_is_refused(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    nudge = np.eye(4)
    nudge[0, 3] = 0.5
    moved = Geometry(SHAPE, geometry.affine @ nudge, sources=geometry.sources)
    fewer = Geometry(SHAPE, geometry.affine, sources=geometry.sources[:-1])
    for wrong in (moved, fewer):
        with pytest.raises(InputError, match="do not lie on the segmentation's grid"):
            write_binary_seg(tmp_path / "seg.dcm", np.zeros(SHAPE, int), wrong, SEGMENTS)


def test_arrays_are_checked(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    path = tmp_path / "seg.dcm"
    with pytest.raises(ValueError, match=r"\(7, 6, 4\)"):
        write_binary_seg(path, np.zeros((6, 7, 4), int), geometry, SEGMENTS)
    with pytest.raises(ValueError, match="2 classes"):
        write_fractional_seg(path, np.zeros((3, *SHAPE)), geometry, SEGMENTS)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        write_fractional_seg(path, np.full((2, *SHAPE), 1.5), geometry, SEGMENTS)


@pytest.mark.filterwarnings("ignore:The string .* is unlikely to represent")
@pytest.mark.parametrize(
    "folder",
    ["mr_brain/11-T1post-18670", "mr_brain/11_HCropVolume", "ct_liver/ct-3slice"],
)
def test_real_series(tmp_path: Path, shared_data: Path, folder: str) -> None:
    (series,) = find_series(shared_data / "dicom" / folder)
    values, geometry = read_series(series)
    label_map = np.digitize(values, np.quantile(values, (0.6, 0.9)))
    write_binary_seg(tmp_path / "seg.dcm", label_map, geometry, SEGMENTS)
    read = read_back(tmp_path / "seg.dcm", geometry)
    for number in (1, 2):
        np.testing.assert_array_equal(read[..., number - 1], label_map == number)
