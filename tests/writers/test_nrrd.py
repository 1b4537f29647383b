"""A ``.seg.nrrd`` lies where the NIfTI mask lies, and names its segments."""

from __future__ import annotations

from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import slicerio
from numpy.typing import NDArray

from medsegdiff.types import Geometry
from medsegdiff.writers.nifti import write_nifti
from medsegdiff.writers.nrrd import write_seg_nrrd
from medsegdiff.writers.segments import segments_of

SEGMENTS = segments_of({0: "background", 1: "Anterior", 2: "Posterior"})
ANGLE = np.radians(20)
OBLIQUE = np.array(
    [
        [0.8 * np.cos(ANGLE), -1.1 * np.sin(ANGLE), 0.0, -13.5],
        [0.8 * np.sin(ANGLE), 1.1 * np.cos(ANGLE), 0.0, 22.0],
        [0.0, 0.0, 3.0, 7.25],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
AFFINES = {
    "identity": np.eye(4),
    "oblique": OBLIQUE,
    "left-handed": OBLIQUE @ np.diag([-1.0, 1.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_lies_where_the_nifti_lies(tmp_path: Path, affine: NDArray[np.float64]) -> None:
    geometry = Geometry((5, 6, 4), affine)
    label_map = np.random.default_rng(1).integers(0, 3, geometry.shape)
    write_nifti(tmp_path / "a_seg.nii.gz", label_map, geometry, dtype="uint8")
    write_seg_nrrd(tmp_path / "a_seg.seg.nrrd", label_map, geometry, SEGMENTS)
    ours, nifti = (sitk.ReadImage(str(tmp_path / f"a_seg.{end}")) for end in ("seg.nrrd", "nii.gz"))
    assert ours.GetSize() == nifti.GetSize()
    np.testing.assert_allclose(ours.GetOrigin(), nifti.GetOrigin(), atol=1e-5)
    np.testing.assert_allclose(ours.GetSpacing(), nifti.GetSpacing(), atol=1e-5)
    np.testing.assert_allclose(ours.GetDirection(), nifti.GetDirection(), atol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(nifti))


def test_segments_have_names_colours_and_codes(tmp_path: Path) -> None:
    path = tmp_path / "a.seg.nrrd"
    label_map = np.random.default_rng(1).integers(0, 3, (5, 6, 4))
    write_seg_nrrd(path, label_map, Geometry((5, 6, 4), np.eye(4)), SEGMENTS)
    read = slicerio.read_segmentation(str(path))
    assert slicerio.segment_names(read) == ["Anterior", "Posterior"]
    for segment, theirs in zip(SEGMENTS, read["segments"], strict=True):
        np.testing.assert_allclose(theirs["color"], segment.colour)
        assert theirs["labelValue"] == segment.value
        assert theirs["terminology"]["type"][2] == segment.name
    np.testing.assert_array_equal(read["voxels"], label_map)
    assert nrrd.read_header(str(path))["space"] == "left-posterior-superior"


def test_a_slice_is_a_volume_of_one(tmp_path: Path) -> None:
    path = tmp_path / "a.seg.nrrd"
    write_seg_nrrd(path, np.ones((5, 6), int), Geometry((5, 6), np.eye(4)), SEGMENTS)
    assert sitk.ReadImage(str(path)).GetSize() == (5, 6, 1)


def test_shape_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(5, 6, 4\)"):
        write_seg_nrrd(
            tmp_path / "a.seg.nrrd",
            np.zeros((5, 6, 3), int),
            Geometry((5, 6, 4), np.eye(4)),
            SEGMENTS,
        )
