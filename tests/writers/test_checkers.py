"""DICOM's checkers find no error in what we write, and find one in what is broken."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medsegdiff.bundle.bundle import load_bundle
from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import find_series, read_series
from medsegdiff.phantoms.cohort import write_dicom_series
from medsegdiff.viz.slice_picture import Line, Outline
from medsegdiff.writers.dicom_seg import write_binary_seg, write_fractional_seg
from medsegdiff.writers.parametric_map import write_variance_map
from medsegdiff.writers.secondary_capture import write_secondary_capture
from medsegdiff.writers.segments import segments_of
from tests.dicom_sources import write_enhanced

SEGMENTS = segments_of(load_bundle("hippocampus_mr").labels, load_bundle("hippocampus_mr").codes)
OBJECTS = ("seg", "mean", "variance", "capture_0001")
KINDS = ("Segmentation", "ParametricMap", "SCImage")


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on the path: install {package}")
    return found


def errors(file: Path) -> list[str]:
    """What dciodvfy calls an error."""
    command = [program("dciodvfy", "dicom3tools"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert any(line in KINDS for line in lines), lines  # it knew it
    return [line for line in lines if line.startswith(("Error", "Abort"))]


def write_all(folder: Path, geometry: Geometry) -> list[Path]:
    rng = np.random.default_rng(2)
    mask = rng.integers(0, 3, geometry.shape)
    write_binary_seg(folder / "seg.dcm", mask, geometry, SEGMENTS)
    write_fractional_seg(folder / "mean.dcm", rng.random((2, *geometry.shape)), geometry, SEGMENTS)
    spread = (0.25 * rng.random(geometry.shape)).astype(np.float32)
    write_variance_map(folder / "variance.dcm", spread, geometry, SEGMENTS[0])
    image = rng.integers(0, 256, (*geometry.shape, 3), dtype=np.uint8)
    outline = Outline(mask == 1, SEGMENTS[0].rgb)
    write_secondary_capture(folder, "capture", image, [outline], [Line("1 ml")], geometry)
    return [folder / f"{name}.dcm" for name in OBJECTS]


def phantom(folder: Path) -> Geometry:
    volume = np.random.default_rng(1).integers(0, 900, (20, 24, 5)).astype(np.uint16)
    write_dicom_series(volume, np.diag([-1.0, -1.2, 2.0, 1.0]), folder)
    (series,) = find_series(folder)
    return read_series(series)[1]


def test_no_errors_of_a_series(tmp_path: Path) -> None:
    for file in write_all(tmp_path, phantom(tmp_path / "series")):
        assert errors(file) == []


def test_no_errors_of_an_enhanced_source(tmp_path: Path) -> None:
    for file in write_all(tmp_path, write_enhanced(tmp_path / "mr.dcm")):
        assert errors(file) == []


def test_an_error_would_be_found(tmp_path: Path) -> None:
    file = write_all(tmp_path, phantom(tmp_path / "series"))[0]
    seg = pydicom.dcmread(file)
    del seg.SegmentSequence[0].SegmentAlgorithmType
    seg.save_as(file)
    assert any("SegmentAlgorithmType" in line for line in errors(file))


@pytest.mark.filterwarnings("ignore:The string .* is unlikely to represent")
@pytest.mark.parametrize("folder", ["mr_brain/11_HCropVolume", "ct_liver/ct-3slice"])
def test_no_errors_of_real_series(tmp_path: Path, shared_data: Path, folder: str) -> None:
    (series,) = find_series(shared_data / "dicom" / folder)
    for file in write_all(tmp_path, read_series(series)[1]):
        assert errors(file) == []


def test_dcmtk_reads_every_element(tmp_path: Path) -> None:
    """A second parser, of the bytes alone; it warns of what is not as the dictionary says."""
    dcmdump = program("dcmdump", "dcmtk")
    for file in write_all(tmp_path, phantom(tmp_path / "series")):
        command = [dcmdump, "--read-file-only", "--load-all", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        placed = ("PerFrameFunctionalGroupsSequence", "ImagePositionPatient")
        assert any(keyword in done.stdout for keyword in placed)
