"""From files to files: geometry, contents, repeatability, and cases that fail."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any, get_args

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat
from PIL import Image

from medsegdiff.bundle.bundle import Bundle, load_bundle
from medsegdiff.bundle.trusted_bundles import trust
from medsegdiff.cases.job import segment
from medsegdiff.cases.one_by_one import raise_for_failures
from medsegdiff.cases.placing import segment_placed
from medsegdiff.cases.run_record import size_warnings
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.core.types import Fusion, Geometry
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.manifest import load_manifest
from medsegdiff.phantoms.cohort import write_dicom_series
from medsegdiff.segmentation.fusion import staple
from medsegdiff.segmentation.segmented_case import SegmentedCase

OBLIQUE = from_matvec(euler2mat(0.3, -0.2, 0.5) @ np.diag([1.0, 1.0, 1.0]), [-40.0, 10.0, 5.0])
ANISOTROPIC = from_matvec(np.diag([-0.8, 1.3, 2.5]), [30.0, -20.0, 7.0])
MAPS = ("mean_anterior", "mean_posterior", "variance_anterior", "variance_posterior", "entropy")


def image_file(folder: Path, affine: np.ndarray, name: str = "scan.nii.gz") -> Path:
    values = np.random.default_rng(0).normal(100, 20, (18, 15, 12)).astype(np.float32)
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 2)
    nib.save(image, folder / name)
    return folder / name


def run(inputs: list[Path], bundle: Bundle, output: Path, **options: object) -> dict[str, str]:
    settings: dict = {"members": 4, "steps": 2, "device": "cpu", **options}
    return segment(inputs, bundle, output, **settings)


@pytest.mark.parametrize(
    "affine", [np.eye(4), OBLIQUE, ANISOTROPIC], ids=["ras", "oblique", "aniso"]
)
def test_files_lie_in_the_inputs_own_space(
    affine: np.ndarray, bundle: Bundle, tmp_path: Path
) -> None:
    path = image_file(tmp_path, affine)
    assert run([path], bundle, tmp_path / "out", save_members=True) == {}
    given, folder = nib.load(path), tmp_path / "out" / "scan"
    for name in ("seg", "anchor", *MAPS):
        written = nib.load(folder / f"scan_{name}.nii.gz")
        assert written.shape == given.shape
        for form in ("get_qform", "get_sform"):
            (before, code), (after, same) = (getattr(i, form)(coded=True) for i in (given, written))
            assert code == same
            np.testing.assert_allclose(after, before, atol=1e-5)
        a, b = sitk.ReadImage(str(path)), sitk.ReadImage(str(folder / f"scan_{name}.nii.gz"))
        np.testing.assert_allclose(a.GetDirection(), b.GetDirection(), atol=1e-5)
        np.testing.assert_allclose(a.GetOrigin(), b.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(a.GetSpacing(), b.GetSpacing(), atol=1e-5)
    assert nib.load(folder / "scan_members.nii.gz").shape == (*given.shape, 4)


def test_nrrd_gives_the_masks_and_place_of_nifti(bundle: Bundle, tmp_path: Path) -> None:
    path = image_file(tmp_path, OBLIQUE)
    (tmp_path / "nrrd").mkdir()
    sitk.WriteImage(sitk.ReadImage(str(path)), tmp_path / "nrrd" / "scan.nrrd")
    run([path], bundle, tmp_path / "a", save_members=True)
    run([tmp_path / "nrrd"], bundle, tmp_path / "b", save_members=True)
    for name in ("seg", "members"):
        a, b = (nib.load(tmp_path / out / "scan" / f"scan_{name}.nii.gz") for out in "ab")
        np.testing.assert_array_equal(a.dataobj, b.dataobj)
        np.testing.assert_allclose(a.affine, b.affine, atol=1e-5)


def test_photographs_are_segmented_in_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 32)).astype(np.uint8)
    for name in ("a.png", "b.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
    assert run([tmp_path], load_bundle("lung_nodule_ct"), tmp_path / "out", members=2) == {}
    for name in "ab":
        folder = tmp_path / "out" / name
        written = nib.load(folder / f"{name}_seg.nii.gz")
        assert written.shape == (32, 48)
        np.testing.assert_array_equal(written.affine, np.eye(4))
        record = json.loads((folder / f"{name}_run.json").read_text())
        assert record["inputs"] == [{"a": "a.png", "b": "b.tif"}[name]]


def test_maps_and_record_agree_with_the_members(bundle: Bundle, tmp_path: Path) -> None:
    path = image_file(tmp_path, np.diag([1.0, 1.0, 1.0, 1.0]))
    run([path], bundle, tmp_path / "out", save_members=True)
    folder = tmp_path / "out" / "scan"
    read = {n: nib.load(folder / f"scan_{n}.nii.gz").get_fdata() for n in ("seg", "members", *MAPS)}
    foreground = np.stack([read["mean_anterior"], read["mean_posterior"]])
    p = np.concatenate([1 - foreground.sum(0, keepdims=True), foreground])
    chosen = np.take_along_axis(p, read["seg"].astype(int)[None], axis=0)[0]
    np.testing.assert_allclose(chosen, p.max(0), atol=1e-6)  # of equal ones the files tell no first
    for name in ("variance_anterior", "variance_posterior"):
        assert read[name].min() >= 0 and read[name].max() <= 0.25
    np.testing.assert_allclose(read["entropy"], -(p * np.log(p.clip(1e-12))).sum(0), atol=1e-4)
    record = json.loads((folder / "scan_run.json").read_text())
    for value, name in ((1, "anterior"), (2, "posterior")):
        volumes = record["volume_ml"][name]
        assert volumes["ensemble"] == pytest.approx((read["seg"] == value).sum() / 1000)
        members = (read["members"] == value).sum((0, 1, 2)) / 1000
        assert volumes["mean_of_members"] == pytest.approx(members.mean())
        assert volumes["members"] == pytest.approx(list(members))
        assert volumes["interval_90"] == pytest.approx(list(np.quantile(members, [0.05, 0.95])))
    assert record["members"] == 4 and record["steps"] == 2 and record["sampler"] == "ddim"
    assert set(record["seconds"]) == {"load", "encode", "sample", "write", "total"}
    assert record["bundle_hash"] == bundle.fingerprint() and record["peak_memory_mb"] > 0
    assert (folder / "scan_preview.png").read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64," in (tmp_path / "out" / "report.html").read_text()


def test_the_same_seed_gives_the_same_masks_in_any_company(bundle: Bundle, tmp_path: Path) -> None:
    a, b = (image_file(tmp_path, np.eye(4), f"{n}.nii.gz") for n in "ab")
    run([a, b], bundle, tmp_path / "both", save_members=True)
    run([b], bundle, tmp_path / "alone", save_members=True)
    run([b], bundle, tmp_path / "other", save_members=True, seed=1)
    both, alone, other = (
        nib.load(tmp_path / run / "b" / "b_mean_anterior.nii.gz").get_fdata()
        for run in ("both", "alone", "other")
    )
    np.testing.assert_array_equal(both, alone)
    assert not np.array_equal(alone, other)


def test_complete_cases_are_kept_and_other_settings_are_told(
    bundle: Bundle, tmp_path: Path
) -> None:
    path, out = image_file(tmp_path, np.eye(4)), tmp_path / "out"
    run([path], bundle, out)
    mask = out / "scan" / "scan_seg.nii.gz"
    before = mask.stat().st_mtime_ns
    assert run([path], bundle, out) == {} and mask.stat().st_mtime_ns == before
    assert "--overwrite" in run([path], bundle, out, seed=1)["scan"]
    assert run([path], bundle, out, seed=1, overwrite=True) == {}
    assert mask.stat().st_mtime_ns > before


@pytest.mark.parametrize("rule", get_args(Fusion))
def test_the_mask_is_fused_as_was_asked(rule: Fusion, bundle: Bundle, tmp_path: Path) -> None:
    path, folder = image_file(tmp_path, ANISOTROPIC), tmp_path / "out" / "scan"
    chosen = {} if rule == "mean" else {"fusion": rule}
    assert run([path], bundle, tmp_path / "out", save_members=True, **chosen) == {}
    names = ("seg", "members", "mean_anterior", "mean_posterior")
    seg, members, *means = (nib.load(folder / f"scan_{n}.nii.gz").get_fdata() for n in names)
    votes = torch.from_numpy(np.moveaxis(members, -1, 0)).byte()
    expected = {
        "mean": np.stack([1 - sum(means), *means]),
        "majority": np.stack([(members == k).sum(-1) for k in range(3)]),
        "staple": staple(votes, 3).numpy(),
    }
    if rule in expected:
        np.testing.assert_array_equal(seg, expected[rule].argmax(0))
    record = json.loads((folder / "scan_run.json").read_text())
    assert record["fusion"] == rule
    volume = (seg == 1).sum() * 0.8 * 1.3 * 2.5 / 1000
    assert record["volume_ml"]["anterior"]["ensemble"] == pytest.approx(volume)
    other = "majority" if rule == "mean" else "mean"
    assert "another fusion" in run([path], bundle, tmp_path / "out", fusion=other)["scan"]


def test_another_image_of_the_same_name_is_told(bundle: Bundle, tmp_path: Path) -> None:
    for name, affine in (("a", np.eye(4)), ("b", ANISOTROPIC)):
        (tmp_path / name).mkdir()
        image_file(tmp_path / name, affine)
    assert run([tmp_path / "a"], bundle, tmp_path / "out") == {}
    assert "another image" in run([tmp_path / "b"], bundle, tmp_path / "out")["scan"]


def test_further_files_are_added_to_a_complete_case(bundle: Bundle, tmp_path: Path) -> None:
    path, out = image_file(tmp_path, np.eye(4)), tmp_path / "out"
    run([path], bundle, out, formats=("nrrd",))
    folder = out / "scan"
    assert not (folder / "scan_seg.nii.gz").exists()
    assert run([path], bundle, out, formats=("nifti",), save_members=True) == {}
    names = ("scan_seg.seg.nrrd", "scan_seg.nii.gz", "scan_members.nii.gz")
    assert all((folder / name).is_file() for name in names)
    before = (folder / "scan_seg.nii.gz").stat().st_mtime_ns
    assert run([path], bundle, out, formats=("nrrd", "nifti")) == {}
    assert (folder / "scan_seg.nii.gz").stat().st_mtime_ns == before


def test_overwriting_leaves_no_file_of_the_former_run(bundle: Bundle, tmp_path: Path) -> None:
    path, out = image_file(tmp_path, np.eye(4)), tmp_path / "out"
    run([path], bundle, out, save_members=True)
    own = out / "scan" / "scan_corrected_by_hand.nii.gz"
    own.write_text("the user's")
    assert run([path], bundle, out, members=2, overwrite=True) == {}
    assert not (out / "scan" / "scan_members.nii.gz").exists() and own.exists()


def test_whatever_goes_wrong_in_a_case_the_others_are_done(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_at_first(
        case: CaseInput, *rest: object
    ) -> tuple[SegmentedCase, dict[str, Any] | None]:
        if case.id == "a":
            raise ValueError("array must be finite\nmore of it") from KeyError("the cause")
        return segment_placed(case, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("medsegdiff.cases.segmenter.segment_placed", fail_at_first)
    paths = [image_file(tmp_path, np.eye(4), f"{name}.nii.gz") for name in "ab"]
    failures = run(paths, bundle, tmp_path / "out")
    assert failures == {"a": "a: KeyError: 'the cause'. Add -v to see where"}
    assert (tmp_path / "out" / "b" / "b_seg.nii.gz").is_file()
    with pytest.raises(InputError, match="1 inputs: could not be segmented: a: KeyError"):
        raise_for_failures(failures)


def test_more_steps_than_there_are_is_wrong_usage(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"steps 2000.*between 1 and 1000"):
        run([image_file(tmp_path, np.eye(4))], bundle, tmp_path / "out", steps=2000)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", None])
def test_broken_weights_are_told(content: bytes | None, bundle: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    shutil.copytree(bundle.root, root)
    weights = root / "models" / "model.pt"
    if content is None:
        torch.save([1, 2], weights)
    else:
        weights.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.pt: (holds no weights|does not fit)"):
        run([image_file(tmp_path, np.eye(4))], Bundle(root), tmp_path / "out")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"network_data_format": 3}'])
def test_broken_metadata_are_told(content: str, bundle: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "broken"
    shutil.copytree(bundle.root, root)
    (root / "configs" / "metadata.json").write_text(content)
    with pytest.raises(InputError, match=r"metadata\.json: (cannot be read|lacks)"):
        run([image_file(tmp_path, np.eye(4))], Bundle(root), tmp_path / "out")


def test_bad_inputs_fail_by_themselves(bundle: Bundle, tmp_path: Path) -> None:
    good = image_file(tmp_path, np.eye(4), "good.nii.gz")
    text = tmp_path / "text.nii.gz"
    text.write_text("not an image")
    nan = tmp_path / "nan.nii.gz"
    nib.save(nib.Nifti1Image(np.full((8, 8, 8), np.nan, np.float32), np.eye(4)), nan)
    series = tmp_path / "series.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8, 5), np.float32), np.eye(4)), series)
    empty = tmp_path / "empty"
    empty.mkdir()
    missing = tmp_path / "missing.nii.gz"
    out = tmp_path / "out"
    failures = run([text, good, nan, series, empty, missing], bundle, out)
    assert set(failures) == {"text", "nan", "series", str(empty), str(missing)}
    assert all("\n" not in reason for reason in failures.values())
    assert json.loads((out / "failures.json").read_text()) == failures
    assert (out / "good" / "good_seg.nii.gz").is_file() and not (out / "nan").exists()
    run([good], bundle, out)
    assert not (out / "failures.json").exists()


def test_a_dicom_series_a_zip_of_it_and_a_folder(bundle: Bundle, tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 1000, (20, 18, 10)).astype(np.int16)
    write_dicom_series(volume, ANISOTROPIC, tmp_path / "dicom", patient="Doe^Jane")
    with zipfile.ZipFile(tmp_path / "series.zip", "w") as archive:
        for file in (tmp_path / "dicom").iterdir():
            archive.write(file, file.name)
    out = tmp_path / "out"
    formats = ("nifti", "nrrd", "dicom-seg", "secondary-capture")
    assert run([tmp_path / "dicom"], bundle, out, formats=formats) == {}
    (case,) = (p.name for p in out.iterdir() if p.is_dir())
    suffixes = {p.name.removeprefix(case) for p in (out / case).iterdir()}
    assert {"_seg.nii.gz", "_seg.seg.nrrd", "_seg.dcm", "_mean.dcm", "_run.json"} <= suffixes
    assert {f"_capture_{n:04d}.dcm" for n in range(1, 11)} <= suffixes
    np.testing.assert_allclose(
        np.abs(np.linalg.det(nib.load(out / case / f"{case}_seg.nii.gz").affine)),
        0.8 * 1.3 * 2.5,
        rtol=1e-4,
    )
    for file in (out / case).rglob("*.json"):
        assert "Doe" not in file.read_text() and str(tmp_path) not in file.read_text()
    assert run([tmp_path / "series.zip"], bundle, out) == {}  # same series, same id: complete


@pytest.mark.parametrize("complete", [True, False])
def test_what_a_killed_process_left_is_removed(
    complete: bool, bundle: Bundle, tmp_path: Path
) -> None:
    image, out = image_file(tmp_path, np.eye(4)), tmp_path / "out"
    if complete:
        run([image], bundle, out)
    left = out / "scan" / ".writing-abc"
    left.mkdir(parents=True)
    (left / "scan_seg.nii.gz").write_bytes(b"half")
    assert run([image], bundle, out) == {} and not left.exists()
    assert (out / "scan" / "scan_seg.nii.gz").is_file()


def test_a_series_with_a_slice_missing(bundle: Bundle, tmp_path: Path) -> None:
    """Refused, or resampled and said so; a SEG could only be misplaced."""
    volume = np.random.default_rng(0).integers(0, 1000, (20, 18, 10)).astype(np.int16)
    write_dicom_series(volume, ANISOTROPIC, tmp_path / "dicom")[4].unlink()
    out = tmp_path / "out"
    (reason,) = run([tmp_path / "dicom"], bundle, out).values()
    assert "not evenly spaced" in reason and "--uneven resample" in reason
    assert run([tmp_path / "dicom"], bundle, out, uneven="resample") == {}
    (record,) = (json.loads(path.read_text()) for path in out.glob("*/*_run.json"))
    assert record["shape"] == [20, 18, 10]
    assert "resampled from 9 to 10" in record["warnings"][0]
    (reason,) = run(
        [tmp_path / "dicom"], bundle, tmp_path / "o", uneven="resample", formats=("dicom-seg",)
    ).values()
    assert "do not lie on the segmentation's grid" in reason


def test_a_seg_that_fails_costs_no_other_format(bundle: Bundle, tmp_path: Path) -> None:
    """It is told as a failure and in the record, and asking again is no use."""
    volume = np.random.default_rng(0).integers(0, 1000, (20, 18, 10)).astype(np.int16)
    write_dicom_series(volume, ANISOTROPIC, tmp_path / "dicom")[4].unlink()
    out = tmp_path / "out"
    formats = ("nifti", "nrrd", "dicom-seg")
    (reason,) = run([tmp_path / "dicom"], bundle, out, uneven="resample", formats=formats).values()
    assert "do not lie on the segmentation's grid" in reason
    (record,) = (json.loads(path.read_text()) for path in out.glob("*/*_run.json"))
    assert record["formats"] == ["nifti", "nrrd"]
    assert "--format dicom-seg could not be written" in record["warnings"][-1]
    assert len(list(out.glob("*/*_seg.nii.gz"))) == len(list(out.glob("*/*.seg.nrrd"))) == 1
    assert not list(out.glob("*/*.dcm"))
    # as the remedy says
    assert run([tmp_path / "dicom"], bundle, out, uneven="resample", formats=formats[:2]) == {}


def test_an_odd_header_is_in_the_record(bundle: Bundle, tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 1000, (20, 18, 10)).astype(np.int16)
    for file in write_dicom_series(volume, ANISOTROPIC, tmp_path / "dicom"):
        header = pydicom.dcmread(file)
        header.PatientBirthDate = "1950-03-31"
        header.save_as(file)
    assert run([tmp_path / "dicom"], bundle, tmp_path / "out", formats=("dicom-seg",)) == {}
    (record,) = (json.loads(p.read_text()) for p in (tmp_path / "out").glob("*/*_run.json"))
    assert "PatientBirthDate of the images is repaired" in record["warnings"][-1]
    assert "1950" not in json.dumps(record["warnings"])


def test_series_of_a_study_as_channels(bundle: Bundle, tmp_path: Path) -> None:
    """The bundle has one channel: with one word a study is one case, with two it does not fit."""
    volume = np.random.default_rng(0).integers(0, 1000, (20, 18, 10)).astype(np.int16)
    for number, name in enumerate(("T1", "FLAIR"), start=1):
        folder = tmp_path / "study" / name
        write_dicom_series(volume, ANISOTROPIC, folder, number=number, description=name)
    assert run([tmp_path / "study"], bundle, tmp_path / "out", channel_series="flair") == {}
    (case,) = (path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert case.endswith("_2")
    (reason,) = run(
        [tmp_path / "study"], bundle, tmp_path / "o", channel_series="T1, flair"
    ).values()
    assert "has 2 channels, but 1 are needed" in reason


def test_a_format_that_the_input_does_not_allow_fails_that_case(
    bundle: Bundle, tmp_path: Path
) -> None:
    failures = run(
        [image_file(tmp_path, np.eye(4))], bundle, tmp_path / "o", formats=("dicom-seg",)
    )
    assert "DICOM" in failures["scan"] and not (tmp_path / "o" / "scan").exists()
    formats = ("dicom-seg", "nifti")
    failures = run([image_file(tmp_path, np.eye(4))], bundle, tmp_path / "p", formats=formats)
    assert "DICOM" in failures["scan"]
    record = json.loads((tmp_path / "p" / "scan" / "scan_run.json").read_text())
    assert record["formats"] == ["nifti"]
    assert (tmp_path / "p" / "scan" / "scan_seg.nii.gz").is_file()


def test_files_of_one_name_from_two_folders_are_two_cases(bundle: Bundle, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        image_file(tmp_path / folder, np.eye(4))
    assert run([tmp_path / "a", tmp_path / "b"], bundle, tmp_path / "out") == {}
    assert (tmp_path / "out" / "b_scan" / "b_scan_seg.nii.gz").is_file()


@pytest.mark.parametrize(
    ("name", "before", "after", "says"),
    [
        ("inference.yaml", "schedule: cosine", "schedule: 7", "objects cannot be made"),
        ("inference.yaml", "segmenter:\n", "segmenter: 7\nformer:\n", "no CaseSegmenter but int"),
        ("metadata.json", ', "2": "posterior"', "", r"classes \[0, 1\], but its network has 3"),
    ],
)
def test_a_bundle_that_cannot_be_used_is_refused_as_a_whole(
    name: str, before: str, after: str, says: str, bundle: Bundle, tmp_path: Path
) -> None:
    shutil.copytree(bundle.root, tmp_path / "bundle")
    path = tmp_path / "bundle" / "configs" / name
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    trust(tmp_path / "bundle")
    with pytest.raises(InputError, match=says):
        run([image_file(tmp_path, np.eye(4))], Bundle(tmp_path / "bundle"), tmp_path / "out")


def test_a_bundle_without_weights_says_what_to_do(bundle: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "bare"
    shutil.copytree(bundle.root, root, ignore=shutil.ignore_patterns("*.pt"))
    with pytest.raises(InputError, match=r"no weights.*Train it"):
        run([image_file(tmp_path, np.eye(4))], Bundle(root), tmp_path / "out")


def test_an_image_of_unusual_size_gets_a_warning() -> None:
    head = Geometry(shape=(197, 233, 189), affine=np.eye(4))
    expected = [[20, 60], [20, 60], [25, 80]]
    (first, *_) = size_warnings(head.shape, head, expected)
    assert "189 mm" in first and "20 to 60 mm" in first
    crop = Geometry(shape=(36, 50, 30), affine=np.eye(4))
    assert size_warnings(crop.shape, crop, expected) == []


def test_cases_of_a_description_can_be_segmented(
    bundle: Bundle, cohort: Path, tmp_path: Path
) -> None:
    parser = bundle.parser("inference", {"output_dir": str(tmp_path), "members": 2, "steps": 1})
    cases = load_manifest(cohort).cases[:1]
    assert parser.get_parsed_content("segmenter").segment_cases(cases) == {}
    assert (tmp_path / cases[0].id / f"{cases[0].id}_seg.nii.gz").is_file()
