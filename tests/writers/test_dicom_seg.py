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
from pydicom.sr.codedict import codes

from medsegdiff import __version__
from medsegdiff.bundle.bundle import list_bundles, load_bundle
from medsegdiff.core.errors import InputError
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import find_series, read_series
from medsegdiff.writers.dicom_seg import write_binary_seg, write_fractional_seg
from medsegdiff.writers.segments import Algorithm, segments_of
from tests.dicom_sources import (
    LAYOUTS,
    SHAPE,
    Layout,
    as_read,
    laid_out,
    write_enhanced,
    write_series,
)

LABELS = {0: "background", 1: "Anterior", 2: "Posterior"}
HIPPOCAMPUS = {
    "category": ("91723000", "SCT", "Anatomical Structure"),
    "type": ("5366008", "SCT", "Hippocampus"),
}
SEGMENTS = segments_of(LABELS, {1: HIPPOCAMPUS})
MODIFIERS = "SegmentedPropertyTypeModifierCodeSequence"


def read_back(path: Path, geometry: Geometry) -> NDArray[Any]:
    """(columns, rows, slices, segments) of a SEG, by its references to the source instances."""
    seg = hd.seg.segread(path)
    uids = [pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID for f in geometry.sources]
    pixels = seg.get_pixels_by_source_instance(
        uids, rescale_fractional=True, assert_missing_frames_are_empty=True
    )
    return pixels.transpose(2, 1, 0, 3).astype(np.float64)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_mask_lies_at_its_slices(tmp_path: Path, layout: Layout) -> None:
    geometry = write_series(tmp_path / "series")
    ours = laid_out(geometry, layout)
    label_map = np.random.default_rng(3).integers(0, 3, ours.shape)
    write_binary_seg(tmp_path / "seg.dcm", label_map, ours, SEGMENTS)
    read = read_back(tmp_path / "seg.dcm", geometry)
    expected = as_read(label_map, layout)
    for number in (1, 2):
        np.testing.assert_array_equal(read[..., number - 1], expected == number)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_probabilities_lie_at_their_slices(tmp_path: Path, layout: Layout) -> None:
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


def test_codes_and_algorithm_are_the_bundles(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    for name in ("heart_mr", "hippocampus_mr", "lung_nodule_ct"):
        bundle = load_bundle(name)
        segments = segments_of(bundle.labels, bundle.codes)
        algorithm = Algorithm(bundle.name, bundle.metadata["version"])
        write_binary_seg(tmp_path / "a.dcm", np.ones(SHAPE, int), geometry, segments, algorithm)
        seg = hd.seg.segread(tmp_path / "a.dcm")
        for segment, description in zip(segments, seg.SegmentSequence, strict=True):
            assert description.segmented_property_category.value == segment.category.value
            (kind,) = description.SegmentedPropertyTypeCodeSequence
            modifiers = [m.CodeMeaning for m in kind.get(MODIFIERS, [])]
            assert modifiers == [segment.modifier.meaning] if segment.modifier else not modifiers
            regions = [code.meaning for code in description.anatomic_regions]
            assert regions == ([segment.region.meaning] if segment.region else [])
            (drawn,) = description.SegmentationAlgorithmIdentificationSequence
            assert (drawn.AlgorithmName, drawn.AlgorithmVersion) == algorithm
            assert drawn.AlgorithmSource.startswith("medsegdiff ")


def test_codes_of_the_bundles_are_in_pydicoms_dictionary() -> None:
    """Code value and meaning as DICOM (PS3.16) prints them, as far as pydicom holds it."""
    for bundle in list_bundles():
        if bundle.pipeline is not None:  # what it finds is named by its user's words
            continue
        assert set(bundle.codes) == set(bundle.labels) - {0}
        for entry in bundle.codes.values():
            for value, scheme, meaning in entry.values():
                keyword = "".join(word[0].upper() + word[1:] for word in meaning.split())
                known = getattr(getattr(codes, scheme), keyword)
                assert (known.value, known.meaning) == (value, meaning)


@pytest.mark.parametrize("shared_plane", [True, False])
def test_an_enhanced_source_is_referred_to_frame_by_frame(
    tmp_path: Path, shared_plane: bool
) -> None:
    order = (2, 0, 3, 1)
    geometry = write_enhanced(tmp_path / "mr.dcm", order, shared_plane)
    label_map = np.random.default_rng(5).integers(0, 3, SHAPE)
    means = np.random.default_rng(6).random((2, *SHAPE))
    write_binary_seg(tmp_path / "seg.dcm", label_map, geometry, SEGMENTS)
    write_fractional_seg(tmp_path / "mean.dcm", means, geometry, SEGMENTS)
    source = pydicom.dcmread(tmp_path / "mr.dcm")
    for name, expected, step in (
        ("seg", np.stack([label_map == 1, label_map == 2]), 0.0),
        ("mean", means, 0.5 / 255 + 1e-6),
    ):
        read = hd.seg.segread(tmp_path / f"{name}.dcm").get_pixels_by_source_frame(
            source.SOPInstanceUID, range(1, len(order) + 1), assert_missing_frames_are_empty=True
        )
        assert read.shape == (len(order), SHAPE[1], SHAPE[0], 2)
        for frame, k in enumerate(order):
            for segment in (0, 1):
                found = read[frame, :, :, segment].T
                np.testing.assert_allclose(found, expected[segment, :, :, k], atol=step)


def test_an_enhanced_source_of_two_volumes_is_refused(tmp_path: Path) -> None:
    geometry = write_enhanced(tmp_path / "mr.dcm", (0, 1, 2, 3, 0, 1, 2, 3))
    with pytest.raises(InputError, match="several images of one slice"):
        write_binary_seg(tmp_path / "seg.dcm", np.zeros(SHAPE, int), geometry, SEGMENTS)


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
        with pytest.raises(InputError, match="do not lie on the segmentation's grid") as told:
            write_binary_seg(tmp_path / "seg.dcm", np.zeros(SHAPE, int), wrong, SEGMENTS)
        assert str(tmp_path) not in str(told.value)  # folders may be called after the patient


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


EQUIPMENT = {
    "Manufacturer": "medsegdiff",
    "ManufacturerModelName": "medsegdiff",
    "SoftwareVersions": __version__,
    "DeviceSerialNumber": "0",
    "InstanceNumber": 1,
}


@pytest.mark.parametrize(
    ("kind", "number", "label", "description"),
    [
        ("BINARY", 9001, "SEGMENTATION", "Segmentation"),
        ("FRACTIONAL", 9002, "PROBABILITY", "Mean probability"),
    ],
)
def test_what_names_an_object(
    kind: str, number: int, label: str, description: str, tmp_path: Path
) -> None:
    geometry, path = write_series(tmp_path / "series"), tmp_path / "seg.dcm"
    algorithm = Algorithm("n" * 70, "v" * 70)
    if kind == "BINARY":
        assert write_binary_seg(path, np.ones(SHAPE, int), geometry, SEGMENTS, algorithm) == ()
    else:
        means = np.full((2, *SHAPE), 0.5)
        assert write_fractional_seg(path, means, geometry, SEGMENTS, algorithm) == ()
    seg = pydicom.dcmread(path)
    said = EQUIPMENT | {
        "SegmentationType": kind,
        "SeriesNumber": number,
        "ContentLabel": label,
        "SeriesDescription": description,
    }
    assert {keyword: seg[keyword].value for keyword in said} == said
    if kind == "FRACTIONAL":
        assert (seg.SegmentationFractionalType, seg.MaximumFractionalValue) == ("PROBABILITY", 255)
    assert len({seg.SeriesInstanceUID, seg.SOPInstanceUID, seg.StudyInstanceUID}) == 3
    assert "None" not in (seg.SeriesInstanceUID, seg.SOPInstanceUID)
    (drawn,) = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence
    assert (drawn.AlgorithmName, drawn.AlgorithmVersion) == ("n" * 64, "v" * 64)
    assert drawn.AlgorithmSource == f"medsegdiff {__version__}"


def test_what_describes_a_segment(tmp_path: Path) -> None:
    geometry, path = write_series(tmp_path / "series"), tmp_path / "seg.dcm"
    codes_of_2 = HIPPOCAMPUS | {
        "modifier": ("255549009", "SCT", "Anterior"),
        "region": ("39607008", "SCT", "Lung"),
    }
    segments = segments_of({0: "background", 7: "x" * 70, 9: "Tail"}, {9: codes_of_2})
    label_map = np.zeros(SHAPE, int)
    label_map[0], label_map[1], label_map[2] = 7, 9, 200
    write_binary_seg(path, label_map, geometry, segments)
    read = read_back(path, geometry)
    assert read[0, ..., 0].all() and read[1, ..., 1].all()
    assert read.sum() == read[0, ..., 0].size + read[1, ..., 1].size  # 200 is no class
    first, second = pydicom.dcmread(path).SegmentSequence
    assert [one.SegmentNumber for one in (first, second)] == [1, 2]
    assert [one.TrackingID for one in (first, second)] == ["medsegdiff-1", "medsegdiff-2"]
    assert len({one.TrackingUID for one in (first, second)}) == 2
    assert first.SegmentLabel == "x" * 64 and second.SegmentLabel == "Tail"
    for one, segment in zip((first, second), segments, strict=True):
        assert one.SegmentAlgorithmType == "AUTOMATIC"
        lab = hd.color.CIELabColor.from_rgb(*segment.rgb).value
        assert tuple(one.RecommendedDisplayCIELabValue) == tuple(lab)
        (category,) = one.SegmentedPropertyCategoryCodeSequence
        found = (category.CodeValue, category.CodingSchemeDesignator, category.CodeMeaning)
        assert found == ("91723000", "SCT", "Anatomical Structure")
    (kind,) = first.SegmentedPropertyTypeCodeSequence
    assert (kind.CodeValue, kind.CodeMeaning) == ("label-7", "x" * 64) and MODIFIERS not in kind
    assert "AnatomicRegionSequence" not in first
    (region,) = second.AnatomicRegionSequence
    assert (region.CodeValue, region.CodeMeaning) == ("39607008", "Lung")
    (modifier,) = second.SegmentedPropertyTypeCodeSequence[0][MODIFIERS].value
    assert (modifier.CodeValue, modifier.CodeMeaning) == ("255549009", "Anterior")


def test_probabilities_outside_by_rounding_are_clipped(tmp_path: Path) -> None:
    geometry, path = write_series(tmp_path / "series"), tmp_path / "mean.dcm"
    means = np.stack([np.full(SHAPE, 1.0005), np.full(SHAPE, -0.0005)])
    write_fractional_seg(path, means, geometry, SEGMENTS)
    read = read_back(path, geometry)
    assert (read[..., 0] == 1.0).all() and (read[..., 1] == 0.0).all()
    for wrong, told in ((1.002, "0 to 1.002"), (-0.002, "-0.002 to 0")):
        means = np.zeros((2, *SHAPE))
        means[1, 0, 0, 0] = wrong
        with pytest.raises(ValueError, match=r"means must lie in \[0, 1\]; got " + told):
            write_fractional_seg(path, means, geometry, SEGMENTS)
    with pytest.raises(ValueError, match="means must have 2 classes in its first axis; got 3"):
        write_fractional_seg(path, np.zeros((3, *SHAPE)), geometry, SEGMENTS)


def test_errors_say_why_and_name_the_formats_that_serve(tmp_path: Path) -> None:
    geometry, path = write_series(tmp_path / "series"), tmp_path / "seg.dcm"
    formats = "Choose --format nifti or nrrd"
    nudged = Geometry(
        SHAPE, geometry.affine @ (np.eye(4) + 0.3 * np.eye(4, k=3)), sources=geometry.sources
    )
    far = Geometry(SHAPE, geometry.affine @ np.diag([2.0, 1, 1, 1]), sources=geometry.sources)
    for wrong in (nudged, far):
        with pytest.raises(InputError) as told:
            write_binary_seg(path, np.zeros(SHAPE, int), wrong, SEGMENTS)
        assert str(told.value) == (
            "the image: the DICOM images do not lie on the segmentation's grid, slice by slice. "
            + formats
        )
    near = Geometry(
        SHAPE, geometry.affine @ (np.eye(4) + 0.2 * np.eye(4, k=3)), sources=geometry.sources
    )
    write_binary_seg(path, np.zeros(SHAPE, int), near, SEGMENTS)
    twice = Geometry(SHAPE, geometry.affine, sources=(*geometry.sources, geometry.sources[0]))
    with pytest.raises(InputError) as told:
        write_binary_seg(path, np.zeros(SHAPE, int), twice, SEGMENTS)
    assert str(told.value) == (
        "the image: holds several images of one identifier: a DICOM object could not name the right"
        f" one. {formats}"
    )
    doubled = write_enhanced(tmp_path / "mr.dcm", (0, 1, 2, 3, 0))
    with pytest.raises(InputError) as told:
        write_binary_seg(path, np.zeros(SHAPE, int), doubled, SEGMENTS)
    assert str(told.value) == (
        "the image: holds several images of one slice, so a DICOM object cannot refer to the right "
        f"one. {formats}"
    )
    with pytest.raises(InputError) as told:
        write_binary_seg(path, np.zeros(SHAPE, int), Geometry(SHAPE, np.eye(4)), SEGMENTS)
    assert str(told.value) == (
        "the image: a DICOM object refers to the DICOM images it was made from, and this is none. "
        f"{formats}, or give the DICOM series"
    )


def test_a_single_slice_may_be_a_plane(tmp_path: Path) -> None:
    geometry = write_series(tmp_path / "series")
    plane = Geometry(SHAPE[:2], geometry.affine, sources=geometry.sources[:1])
    label_map = np.random.default_rng(0).integers(0, 3, SHAPE[:2])
    write_binary_seg(tmp_path / "seg.dcm", label_map, plane, SEGMENTS)
    read = read_back(tmp_path / "seg.dcm", plane)
    np.testing.assert_array_equal(read[:, :, 0, 1], label_map == 2)
