"""A SEG as labels is the mask that highdicom, dcmqi and our writer say, on the image's grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import find_series, read_series
from medsegdiff.data.references import Structures, is_reference, read_structures
from medsegdiff.writers.dicom_seg import write_binary_seg, write_fractional_seg
from medsegdiff.writers.segments import segments_of
from tests.dicom_sources import (
    LAYOUTS,
    SHAPE,
    Layout,
    laid_out,
    write_enhanced,
    write_rtstruct,
    write_series,
)

LABELS = {0: "background", 1: "Anterior", 2: "Posterior"}
SEGMENTS = segments_of(LABELS)
BOTH = Structures.of_labels(LABELS)


def random_mask(shape: tuple[int, ...] = SHAPE) -> Any:
    mask = np.random.default_rng(11).integers(0, 3, shape)
    mask[..., 1] = 0  # a slice without a frame
    return mask


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_what_was_written_is_read_whatever_the_axes(tmp_path: Path, layout: Layout) -> None:
    geometry = laid_out(write_series(tmp_path / "series"), layout)
    mask = np.random.default_rng(3).integers(0, 3, geometry.shape)
    write_binary_seg(tmp_path / "seg.dcm", mask, geometry, SEGMENTS)
    np.testing.assert_array_equal(read_structures(tmp_path / "seg.dcm", geometry, BOTH), mask)


def test_frames_may_be_missing_and_slices_in_any_order(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    mask = random_mask()
    write_binary_seg(tmp_path / "seg.dcm", mask, geometry, SEGMENTS)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert int(seg.NumberOfFrames) == 6  # three slices of two segments
    read = read_structures(tmp_path / "seg.dcm", geometry, BOTH)
    np.testing.assert_array_equal(read, mask)
    theirs = hd.seg.segread(tmp_path / "seg.dcm").get_pixels_by_source_instance(
        [pydicom.dcmread(f).SOPInstanceUID for f in geometry.sources],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    np.testing.assert_array_equal(read, theirs.T)


def test_fractions_from_one_half_on_are_inside(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    share = np.random.default_rng(2).random((1, *SHAPE))
    write_fractional_seg(tmp_path / "mean.dcm", share, geometry, SEGMENTS[:1])
    read = read_structures(tmp_path / "mean.dcm", geometry, Structures({1: ("anterior",)}))
    stored = np.rint(share[0] * 255)
    np.testing.assert_array_equal(read, stored >= 127.5)


def test_a_label_map_segmentation(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    mask = random_mask()
    images = [pydicom.dcmread(file) for file in geometry.sources]
    for image in images:
        image.PatientName = image.PatientBirthDate = image.PatientSex = None
        image.StudyID = image.StudyDate = image.StudyTime = None
        image.AccessionNumber = image.ReferringPhysicianName = None
    write_binary_seg(tmp_path / "seg.dcm", mask, geometry, SEGMENTS)
    described = hd.seg.segread(tmp_path / "seg.dcm").SegmentSequence
    seg = hd.seg.Segmentation(
        source_images=images,
        pixel_array=mask.T.astype(np.uint8),
        segmentation_type="LABELMAP",
        segment_descriptions=list(described),
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
    )
    seg.save_as(tmp_path / "map.dcm")
    read = read_structures(tmp_path / "map.dcm", geometry, BOTH)
    np.testing.assert_array_equal(read, mask)


def test_of_an_enhanced_image(tmp_path: Path) -> None:
    geometry = write_enhanced(tmp_path / "mr.dcm")
    mask = random_mask()
    write_binary_seg(tmp_path / "seg.dcm", mask, geometry, SEGMENTS)
    np.testing.assert_array_equal(read_structures(tmp_path / "seg.dcm", geometry, BOTH), mask)


def test_another_grid_is_refused(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    write_binary_seg(tmp_path / "seg.dcm", random_mask(), geometry, SEGMENTS)
    moved, half = np.eye(4), np.diag([0.5, 0.5, 1.0, 1.0])
    moved[0, 3] = 0.3
    large, fewer = (2 * SHAPE[0], 2 * SHAPE[1], SHAPE[2]), (*SHAPE[:2], SHAPE[2] - 1)
    for wrong, rule in (
        (Geometry(SHAPE, geometry.affine @ moved), "has another grid"),
        (Geometry(large, geometry.affine @ half), "has another grid"),  # every other voxel
        (Geometry(fewer, geometry.affine), "outside of its image"),
    ):
        with pytest.raises(InputError, match=rule):
            read_structures(tmp_path / "seg.dcm", wrong, BOTH)


def test_slices_further_apart_than_the_images_are_refused(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    mask = np.ones(SHAPE, int)
    write_binary_seg(tmp_path / "seg.dcm", mask, geometry, SEGMENTS)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 3.0
    seg.save_as(tmp_path / "seg.dcm")
    shape = (*SHAPE[:2], 2 * SHAPE[2])
    finer = Geometry(shape, geometry.affine @ np.diag([1.0, 1.0, 0.5, 1.0]))
    with pytest.raises(InputError, match="slices are 3 mm apart, not as its image's"):
        read_structures(tmp_path / "seg.dcm", finer, Structures({1: ("anterior",)}))
    read = read_structures(tmp_path / "seg.dcm", geometry, Structures({1: ("anterior",)}))
    np.testing.assert_array_equal(read, mask)


def test_another_frame_of_reference_is_refused(tmp_path: Path) -> None:
    geometry, other = (write_series(tmp_path / name) for name in ("one", "other"))
    write_binary_seg(tmp_path / "seg.dcm", random_mask(), geometry, SEGMENTS)
    with pytest.raises(InputError, match="another frame of reference"):
        read_structures(tmp_path / "seg.dcm", other, BOTH)
    nowhere = Geometry(SHAPE, geometry.affine)  # as of a NIfTI, which has none
    assert read_structures(tmp_path / "seg.dcm", nowhere, BOTH).any()


@pytest.mark.parametrize("field", ["PerFrameFunctionalGroupsSequence", "PixelData", "Rows"])
def test_damaged_files_are_told(tmp_path: Path, field: str) -> None:
    geometry = write_series(tmp_path / "series")
    write_binary_seg(tmp_path / "seg.dcm", random_mask(), geometry, SEGMENTS)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    delattr(seg, field)
    seg.save_as(tmp_path / "seg.dcm")
    with pytest.raises(InputError, match=r"seg\.dcm: its content cannot be understood"):
        read_structures(tmp_path / "seg.dcm", geometry, BOTH)


def test_what_is_a_reference(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    folder = tmp_path / "seg"
    write_binary_seg(folder / "1-1", random_mask(), geometry, SEGMENTS)
    write_rtstruct(tmp_path / "rt", {}, "1.2.3")
    (tmp_path / "text.dcm").write_text("no DICOM")
    assert is_reference(folder / "1-1") and is_reference(str(folder))
    assert is_reference(tmp_path / "rt")
    for other in (tmp_path / "series", geometry.sources[0], tmp_path / "text.dcm", tmp_path / "no"):
        assert not is_reference(other)


@pytest.fixture
def liver(shared_data: Path) -> tuple[Path, Geometry]:
    folder = shared_data / "dicom" / "ct_liver"
    (series,) = find_series(folder / "ct-3slice")
    return folder, read_series(series)[1]


def test_the_liver_is_that_of_dcmqis_nrrd(liver: tuple[Path, Geometry]) -> None:
    """They hold the same mask, and the NRRD lies where the CT lies: so does the SEG."""
    folder, geometry = liver
    read = read_structures(folder / "liver.dcm", geometry, Structures({1: ("liver",)}))
    nrrd = sitk.ReadImage(str(folder / "liver_seg.nrrd"))
    np.testing.assert_array_equal(read, sitk.GetArrayFromImage(nrrd).T > 0)
    assert read.any(axis=(0, 1)).all()
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine
    np.testing.assert_allclose(lps[:3, 3], nrrd.GetOrigin(), atol=1e-4)
    directions = np.array(nrrd.GetDirection()).reshape(3, 3) * nrrd.GetSpacing()
    np.testing.assert_allclose(lps[:3, :3], directions, atol=1e-4)


def test_partial_overlaps(liver: tuple[Path, Geometry]) -> None:
    folder, geometry = liver
    file = folder / "partial_overlaps.dcm"
    theirs = hd.seg.segread(file).get_pixels_by_source_instance(
        [pydicom.dcmread(f).SOPInstanceUID for f in geometry.sources],
        assert_missing_frames_are_empty=True,
        ignore_spatial_locations=True,  # dcmqi does not say that it kept them
    )
    masks = theirs.transpose(2, 1, 0, 3) > 0
    alone = read_structures(file, geometry, Structures({1: ("green",)}))
    np.testing.assert_array_equal(alone, masks[..., 0])
    names: dict[int, tuple[str | int, ...]] = {1: ("green",), 2: ("light blue",), 3: (3,)}
    with pytest.raises(InputError, match="'green' and 3 overlap in 95 voxels"):
        read_structures(file, geometry, Structures(names))
    expected = np.zeros(geometry.shape, int)
    for value, segment in ((1, 0), (2, 3), (3, 2)):
        expected[masks[..., segment]] = value
    read = read_structures(file, geometry, Structures(names, "greatest"))
    np.testing.assert_array_equal(read, expected)
    with pytest.raises(InputError, match=r"it has: 1 'GREEN', 2 'ORANGE', .* 5 'DARK_BLUE'"):
        read_structures(file, geometry, Structures({1: ("liver",)}))
