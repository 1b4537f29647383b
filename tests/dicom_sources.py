"""DICOM of a known place, by pydicom alone: a series, a multi-frame image, a structure set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    RTStructureSetStorage,
    generate_uid,
)

from medsegdiff.core.types import Geometry

SHAPE = (7, 6, 4)  # columns, rows, slices
ANGLE = np.radians(25)
ALONG_ROW = np.array([np.cos(ANGLE), np.sin(ANGLE), 0.0])
ALONG_COLUMN = np.array([0.0, 0.0, -1.0])
NORMAL = np.cross(ALONG_ROW, ALONG_COLUMN)
ORIGIN, SPACING, GAP = np.array([-31.5, 12.0, 44.0]), (0.9, 0.7), 3.0


Layout = tuple[tuple[int, int], ...]
# Array axes as (DICOM axis, direction): as read, permuted, flipped, both.
LAYOUTS: dict[str, Layout] = {
    "as read": ((0, 1), (1, 1), (2, 1)),
    "permuted": ((2, 1), (0, 1), (1, 1)),
    "flipped": ((0, -1), (1, 1), (2, -1)),
    "both": ((1, -1), (2, -1), (0, 1)),
}


def affine() -> np.ndarray:
    """Voxel (column, row, slice) -> RAS+ mm: oblique and anisotropic."""
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = ALONG_ROW * SPACING[1], ALONG_COLUMN * SPACING[0]
    lps[:3, 2], lps[:3, 3] = NORMAL * GAP, ORIGIN
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def write_series(folder: Path) -> Geometry:
    """One study's series, in files whose names do not tell the order."""
    study, series, frame = (generate_uid() for _ in range(3))
    folder.mkdir()
    files = []
    for k in range(SHAPE[2]):
        ds = _image(MRImageStorage, (study, series, frame))
        ds.InstanceNumber = k + 1
        ds.ImagePositionPatient = _decimals(ORIGIN + k * GAP * NORMAL)
        ds.ImageOrientationPatient = _decimals(np.array([*ALONG_ROW, *ALONG_COLUMN]))
        ds.PixelSpacing, ds.SliceThickness = list(SPACING), GAP
        ds.PixelData = np.full((SHAPE[1], SHAPE[0]), k, dtype=np.uint16).tobytes()
        files.append(folder / f"{(3 * k + 1) % SHAPE[2]}.dcm")
        ds.save_as(files[-1], enforce_file_format=True)
    return Geometry(SHAPE, affine(), sources=tuple(files))


def write_enhanced(
    file: Path, order: tuple[int, ...] = (2, 0, 3, 1), shared_plane: bool = True
) -> Geometry:
    """The same volume as one enhanced MR, its frames in an order of their own.

    Args:
        file: to write.
        order: the slice of each frame.
        shared_plane: orientation and spacing once for all frames, or again in each.
    """
    ds = _image(EnhancedMRImageStorage, tuple(generate_uid() for _ in range(3)))
    ds.InstanceNumber, ds.NumberOfFrames = 1, len(order)
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = _decimals(np.array([*ALONG_ROW, *ALONG_COLUMN]))
    measures.PixelSpacing, measures.SliceThickness = list(SPACING), GAP
    ds.PerFrameFunctionalGroupsSequence = []
    for k in order:
        position, content, frame = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = _decimals(ORIGIN + k * GAP * NORMAL)
        content.StackID, content.InStackPositionNumber = "1", k + 1
        content.DimensionIndexValues = [1, k + 1]
        frame.PlanePositionSequence, frame.FrameContentSequence = [position], [content]
        ds.PerFrameFunctionalGroupsSequence.append(frame)
    for group in [shared] if shared_plane else ds.PerFrameFunctionalGroupsSequence:
        group.PlaneOrientationSequence, group.PixelMeasuresSequence = [orientation], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    frames = [np.full((SHAPE[1], SHAPE[0]), k, dtype=np.uint16) for k in order]
    ds.PixelData = np.stack(frames).tobytes()
    ds.save_as(file, enforce_file_format=True)
    return Geometry(SHAPE, affine(), sources=(file,))


def laid_out(geometry: Geometry, layout: Layout) -> Geometry:
    """The same space with other array axes."""
    new = np.zeros((4, 4))
    new[3, 3] = 1.0
    for i, (axis, sign) in enumerate(layout):
        new[axis, i] = sign
        new[axis, 3] += geometry.shape[axis] - 1 if sign < 0 else 0
    shape = tuple(geometry.shape[axis] for axis, _ in layout)
    return Geometry(shape, geometry.affine @ new, sources=geometry.sources)


def as_read(array: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """Undoes :func:`laid_out` on an array: back to columns, rows, slices."""
    flipped = array[tuple(slice(None, None, sign) for _, sign in layout)]
    return flipped.transpose(np.argsort([axis for axis, _ in layout]))


def write_rtstruct(
    file: Path,
    regions: dict[str, list[NDArray[Any]]],
    frame_of_reference: str,
    kind: str = "CLOSED_PLANAR",
) -> Path:
    """A structure set.

    Args:
        file: to write.
        regions: name -> contours (n, 3) in LPS mm; they are numbered 11, 12, ...
        frame_of_reference: of all regions.
        kind: of all contours.
    """
    ds = _header(RTStructureSetStorage, (generate_uid(), generate_uid(), frame_of_reference))
    ds.Modality, ds.StructureSetLabel = "RTSTRUCT", "test"
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(regions.items(), start=11):
        region, item = Dataset(), Dataset()
        region.ROINumber, region.ROIName = number, name
        region.ReferencedFrameOfReferenceUID = frame_of_reference
        item.ReferencedROINumber, item.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = _decimals(points.ravel())
            item.ContourSequence.append(contour)
        ds.StructureSetROISequence.append(region)
        if contours:
            ds.ROIContourSequence.append(item)
    ds.save_as(file, enforce_file_format=True)
    return file


def frame_of_reference_of(geometry: Geometry) -> str:
    return str(dcmread(geometry.sources[0], stop_before_pixels=True).FrameOfReferenceUID)


def to_lps(geometry: Geometry, voxels: NDArray[Any]) -> NDArray[np.float64]:
    """Voxel coordinates (n, 3) as points in LPS mm."""
    ras = voxels @ geometry.affine[:3, :3].T + geometry.affine[:3, 3]
    return np.asarray(ras * (-1.0, -1.0, 1.0))


def _header(kind: str, identity: tuple[str, ...]) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(kind)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = identity
    ds.PatientID, ds.SeriesNumber = "P1", 3
    return ds


def _image(kind: str, identity: tuple[str, ...]) -> Dataset:
    ds = _header(kind, identity)
    ds.Modality = "MR"
    ds.Columns, ds.Rows = SHAPE[:2]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation, ds.SamplesPerPixel = 15, 0, 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    return ds


def _decimals(values: np.ndarray) -> list[str]:
    return [f"{v:.8g}" for v in values]
