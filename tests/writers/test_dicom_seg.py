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
    for name in ("hippocampus_mr", "lung_nodule_ct"):
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
                known = getattr(getattr(codes, scheme), meaning.replace(" ", ""))
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
