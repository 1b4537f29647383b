"""Values and affine are those of SimpleITK and dcm2niix, on real and on made series."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medsegdiff.core.types import Geometry
from medsegdiff.data.dicom import by_study, case_id, choose_channels, find_series, read_series
from medsegdiff.data.transforms import LoadCased, load
from tests.data.dicom.files import (
    LOSSLESS,
    RAS,
    READABLE,
    add,
    as_ct,
    each,
    edit_all,
    halve,
    invert,
    made,
    plane_affine,
    tilt,
)

SHARED = [
    "mr_brain/11-T1post-18670",
    "mr_brain/26401-T1prereg-52906",
    "mr_brain/36468-FLAIRreg-58706",
    "mr_brain/37830-T2reg-78532",
    "mr_brain/11_HCropVolume",
    "ct_liver/ct-3slice",
]


NOT_READ = {  # by the other program, or not right
    "test_simpleitk": {"MONOCHROME1", "enhanced MR", "enhanced CT"},  # one slope for all frames
    "test_dcm2niix": {"DeflatedExplicitVRLittleEndian"},
}
LOSSY_DIFFERENCE = 1  # of decoders that round


@pytest.fixture(params=[*SHARED, *READABLE])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Of one series."""
    if request.param in NOT_READ[request.function.__name__]:
        pytest.skip("the other program does not read it right")
    if request.param in READABLE:
        return READABLE[request.param](tmp_path / "series")
    path: Path = request.getfixturevalue("shared_data") / "dicom" / request.param
    if not path.is_dir():
        pytest.skip(f"no {path}")
    return path


def read(folder: Path) -> tuple[np.ndarray, Geometry]:
    (series,) = find_series(folder)
    return read_series(series)


def canonical(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image = nib.as_closest_canonical(nib.Nifti1Image(array.astype(np.float32), affine))
    return image.get_fdata(), image.affine


def check_same(
    ours: tuple[np.ndarray, np.ndarray],
    theirs: tuple[np.ndarray, np.ndarray],
    lossy: bool = False,
) -> None:
    """Whatever way their axes run."""
    values, affine = canonical(*ours)
    reference, expected = canonical(*theirs)
    np.testing.assert_allclose(affine, expected, atol=2e-3)
    np.testing.assert_allclose(
        values, reference, rtol=1e-5, atol=LOSSY_DIFFERENCE if lossy else 1e-4
    )


def is_lossy(geometry: Geometry) -> bool:
    syntax = pydicom.filereader.read_file_meta_info(geometry.sources[0]).TransferSyntaxUID
    return syntax in (pydicom.uid.JPEGBaseline8Bit, pydicom.uid.JPEG2000)


def by_simpleitk(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    files = [str(file) for file in geometry.sources]
    image = sitk.ReadImage(files if len(files) > 1 else files[0])
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine_of(image)


def affine_of(image: sitk.Image) -> np.ndarray:
    lps = np.eye(4)
    directions = np.array(image.GetDirection()).reshape(3, 3)
    lps[:3, :3], lps[:3, 3] = directions * image.GetSpacing(), image.GetOrigin()
    return np.asarray(RAS @ lps)


def _dcm2niix() -> str:
    """The package's program if it is there: Debian's lacks JPEG-LS."""
    try:
        import dcm2niix
    except ModuleNotFoundError:
        program = shutil.which("dcm2niix")
        return program or pytest.skip("dcm2niix is not installed")
    return str(dcm2niix.bin)


def by_dcm2niix(folder: Path, output: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    program = _dcm2niix()
    output.mkdir()
    command: list[str | Path] = [program, "-z", "n", "-b", "n", "-f", "%s_%e", "-o", output, folder]
    subprocess.run(command, check=True, capture_output=True)
    images = [nib.load(file) for file in sorted(output.glob("*.nii"))]
    return [(image.get_fdata(), image.affine) for image in images]


def test_simpleitk(folder: Path) -> None:
    values, geometry = read(folder)
    check_same((values, geometry.affine), by_simpleitk(geometry))


def test_dcm2niix(folder: Path, tmp_path: Path) -> None:
    values, geometry = read(folder)
    (theirs,) = by_dcm2niix(folder, tmp_path / "nifti")
    check_same((values, geometry.affine), theirs, lossy=is_lossy(geometry))


def test_monochrome1_is_as_stored(tmp_path: Path) -> None:
    """SimpleITK turns its values round, dcm2niix does not."""
    values, geometry = read(edit_all(made(tmp_path / "series"), invert))
    reference, affine = by_simpleitk(geometry)
    check_same((values, geometry.affine), (65535.0 - reference, affine))
    assert "MONOCHROME1" in geometry.notes[0]


def test_tilted_gantry(tmp_path: Path) -> None:
    """The sheared grid is ITK's, and each header's; dcm2niix has the same values on a straight one.

    (That which it shears back is left aside: it lies one row off.)
    """
    folder = tilt(as_ct(made(tmp_path / "series", affine=plane_affine("axial"))))
    values, geometry = read(folder)
    assert "gantry tilt of 18.4 degrees" in geometry.notes[0]
    rater = sitk.ImageSeriesReader()
    rater.SetFileNames([str(file) for file in geometry.sources])
    rater.ForceOrthogonalDirectionOff()
    np.testing.assert_allclose(geometry.affine, affine_of(rater.Execute()), atol=1e-6)
    for k, file in enumerate(geometry.sources):
        position = RAS[:3, :3] @ np.array(pydicom.dcmread(file).ImagePositionPatient, float)
        np.testing.assert_allclose((geometry.affine @ [0, 0, k, 1])[:3], position, atol=1e-6)
    straight = geometry.affine.copy()
    straight[1, 2] = 0.0
    images = by_dcm2niix(folder, tmp_path / "nifti")
    check_same((values, straight), min(images, key=lambda image: image[0].size))


def test_lossless_compression_changes_nothing(tmp_path: Path) -> None:
    expected, _ = read(as_ct(made(tmp_path / "plain")))
    for syntax in LOSSLESS:
        values, _ = read(READABLE[syntax](tmp_path / syntax))
        np.testing.assert_array_equal(values, expected)


def test_echoes_are_those_of_dcm2niix(tmp_path: Path) -> None:
    folder = made(tmp_path / "series")
    add(folder, each(lambda h: setattr(h, "EchoTime", 6.5), halve))
    ours = find_series(folder)
    assert [one.part for one in ours] == ["TE 3 ms", "TE 6.5 ms"]
    images = sorted(by_dcm2niix(folder, tmp_path / "nifti"), key=lambda i: -float(i[0].mean()))
    for one, theirs in zip(ours, images, strict=True):  # the first is the brighter one
        values, geometry = read_series(one)
        check_same((values, geometry.affine), theirs)


def test_the_four_shared_series_are_one_case(shared_data: Path) -> None:
    if not (shared_data / "dicom" / "mr_brain").is_dir():
        pytest.skip("no mr_brain among the real data")
    (study,) = by_study(find_series(shared_data / "dicom" / "mr_brain"))
    chosen = choose_channels(study, ["T1post", "T1pre", "flair", "T2"], "mr_brain")
    assert [one.number for one in chosen] == [11, 26401, 36468, 37870]
    item = load(LoadCased(channels=4), {"image": list(chosen)})
    assert item["image"].shape == (4, 280, 320, 22)
    for channel, one in zip(item["image"], chosen, strict=True):
        reference, affine = by_simpleitk(read_series(one)[1])
        np.testing.assert_array_equal(channel, reference)
        np.testing.assert_allclose(item["geometry"].affine, affine, atol=0.05)


def test_all_shared_series_are_found_and_nothing_else(
    shared_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if not (shared_data / "dicom").is_dir():
        pytest.skip("no DICOM among the real data")
    series = find_series(shared_data / "dicom")
    assert sorted(len(one.files) for one in series) == [3, 22, 22, 22, 22, 40]
    assert len({case_id(one, "") for one in series}) == 6
    assert "no image but Segmentation" in caplog.text
