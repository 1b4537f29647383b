"""What users name -> cases, each with an id of its own."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from medsegdiff.cases import inputs
from medsegdiff.cases.inputs import DicomOptions, found_cases
from medsegdiff.core import limits
from medsegdiff.data.formats import list_endings
from medsegdiff.phantoms.cohort import write_dicom_series


def volume(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mha":
        path.touch()
        return path
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.float32), np.eye(4)), path)
    return path


def test_every_case_has_an_id_of_its_own(tmp_path: Path) -> None:
    names = ("a/x.nii.gz", "a/x.nii", "a/x-2.nii.gz", "a/x.mha")
    given = [volume(tmp_path / name) for name in names]
    with found_cases(given, tmp_path / "out") as (cases, failures):
        assert [(case.id, case.image[0]) for case in cases] == [
            ("x", given[0]),
            ("x-3", given[1]),
            ("x-2", given[2]),
            ("x-4", given[3]),
        ]
        assert failures == {}


def test_folders_tell_files_of_one_name_apart(tmp_path: Path) -> None:
    for name in ("subjA/T1.nii.gz", "subjB/T1.nii.gz", "subjC/deep/T1.nii.gz"):
        volume(tmp_path / name)
    with found_cases([tmp_path], tmp_path / "out") as (cases, _):
        assert [case.id for case in cases] == ["subjA_T1", "subjB_T1", "subjC_deep_T1"]


@pytest.mark.parametrize("whole", [False, True])
def test_folders_tell_inputs_of_one_name_apart(tmp_path: Path, whole: bool) -> None:
    files = [volume(tmp_path / f"subj{name}" / "T1.nii.gz") for name in "ABC"]
    other = volume(tmp_path / "subjA" / "T2.nii.gz") if not whole else tmp_path / "subjB"
    given = [*(file.parent if whole else file for file in files[:2]), files[2], other]
    with found_cases(given, tmp_path / "out") as (cases, _):
        named = ["subjA_T1", "subjB_T1", "subjC_T1", "subjB_T1-2" if whole else "T2"]
        assert [case.id for case in cases] == named


def test_channels_of_one_name_in_several_folders(tmp_path: Path) -> None:
    names = [f"subj{name}/x_000{number}.nii.gz" for name in "AB" for number in (0, 1)]
    given = [volume(tmp_path / name) for name in names]
    with found_cases(given, tmp_path / "out", channels=2) as (cases, _):
        assert [case.id for case in cases] == ["subjA_x", "subjB_x"]


def test_a_folder_with_a_file_of_each_channel_is_one_case(tmp_path: Path) -> None:
    named = {
        "P1": ("P1_T1", "P1_flair", "P1_seg"),
        "P2": ("flair", "t1"),
        "P3": ("t1", "t2"),
        "deep/P2": ("t1", "flair"),
    }
    for folder, names in named.items():
        for name in names:
            volume(tmp_path / folder / f"{name}.nii.gz")
    with found_cases([tmp_path], tmp_path / "out", None, 2, ("FLAIR", "T1")) as (cases, _):
        of_folders = {case.id: [Path(str(path)).name for path in case.image] for case in cases}
    assert of_folders == {
        "P1": ["P1_flair.nii.gz", "P1_T1.nii.gz"],
        f"{tmp_path.name}_P2": ["flair.nii.gz", "t1.nii.gz"],
        "deep_P2": ["flair.nii.gz", "t1.nii.gz"],
        "P3_t1": ["t1.nii.gz"],
        "P3_t2": ["t2.nii.gz"],
    }
    inside = tmp_path / "P1" / "inside"
    inside.mkdir()
    with found_cases([inside / ".."], tmp_path / "out", None, 2, ("FLAIR", "T1")) as (cases, _):
        assert [case.id for case in cases] == ["P1"]
    with zipfile.ZipFile(tmp_path / "P9.zip", "w") as archive:
        for name in ("flair", "t1"):
            archive.write(tmp_path / "P2" / f"{name}.nii.gz", f"{name}.nii.gz")
    packed = [tmp_path / "P9.zip"]
    with found_cases(packed, tmp_path / "out", None, 2, ("FLAIR", "T1")) as (cases, _):
        assert [case.id for case in cases] == ["P9"]
    alone = tmp_path / "P2" / "flair.nii.gz"
    with found_cases([alone], tmp_path / "out", None, 2, ("FLAIR", "T1")) as (cases, _):
        assert [case.image for case in cases] == [(alone,)]


def test_labels_beside_images_are_no_cases(tmp_path: Path) -> None:
    for name in ("P1/imaging", "P1/segmentation", "P2/imaging", "x", "x_mask", "y"):
        volume(tmp_path / "scans" / f"{name}.nii.gz")
    with found_cases([tmp_path / "scans"], tmp_path / "out") as (cases, _):
        assert [case.id for case in cases] == ["x", "y"]
    folders = [tmp_path / "scans" / name for name in ("P1", "P2")]
    with found_cases(folders, tmp_path / "out") as (cases, _):
        assert [case.id for case in cases] == ["P1_imaging", "P2_imaging"]
    mask = tmp_path / "scans" / "x_mask.nii.gz"
    with found_cases([mask], tmp_path / "out") as (cases, _):
        assert [case.image for case in cases] == [(mask,)]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_channel_files_are_one_case(tmp_path: Path, one_by_one: bool) -> None:
    names = ("a_0000", "a_0001", "b_0000", "b_0001", "c", "d_0000")
    files = [volume(tmp_path / f"{name}.nii.gz") for name in names]
    given = files if one_by_one else [tmp_path]
    with found_cases(given, tmp_path / "out", channels=2) as (cases, failures):
        assert [(case.id, case.image) for case in cases] == [
            ("a", tuple(files[:2])),
            ("b", tuple(files[2:4])),
            ("c", (files[4],)),
        ]
        assert "needs 2 channels" in str(failures["d"])


def test_numbers_of_a_model_with_one_channel(tmp_path: Path) -> None:
    numbered = [volume(tmp_path / "a" / f"x_{n:04d}.nii.gz") for n in (0, 1)]
    with found_cases([tmp_path / "a"], tmp_path / "out") as (cases, _):
        assert [case.image for case in cases] == [(path,) for path in numbered]
    for name in ("x", "y"):
        volume(tmp_path / "b" / f"{name}_0000.nii.gz")
    with found_cases([tmp_path / "b"], tmp_path / "out") as (cases, _):
        assert [case.id for case in cases] == ["x", "y"]


def test_derivatives_and_labels_are_no_inputs(tmp_path: Path) -> None:
    volume(tmp_path / "bids/sub-1/anat/sub-1_T1w.nii.gz")
    volume(tmp_path / "bids/sub-1/func/sub-1_task-rest_bold.nii.gz")
    volume(tmp_path / "bids/derivatives/p/sub-1/anat/sub-1_dseg.nii.gz")
    link = tmp_path / "bids/sub-2/anat/sub-2_T1w.nii.gz"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../missing")
    with found_cases([tmp_path / "bids"], tmp_path / "out") as (cases, failures):
        assert [case.id for case in cases] == ["sub-1_T1w"]
        assert "a link to a file that is not there" in str(failures[str(link)])
    volume(tmp_path / "set/imagesTr/x.nii.gz"), volume(tmp_path / "set/labelsTr/y.nii.gz")
    with found_cases([tmp_path / "set"], tmp_path / "out") as (cases, _):
        assert [case.id for case in cases] == ["x"]


def test_what_is_left_out_of_a_folder_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume(tmp_path / "one.nii.gz"), volume(tmp_path / "sub" / "two.nii.gz")
    volume(tmp_path / "out" / "one" / "one_seg.nii.gz")
    with found_cases([tmp_path], tmp_path / "out") as (cases, _):
        assert [case.id for case in cases] == ["one"]
    told = {record.getMessage() for record in caplog.records if "left out" in record.getMessage()}
    (text,) = told
    assert text.startswith(f"{tmp_path}: image files of 1 folders below it") and "sub" not in text
    with found_cases([tmp_path / "sub"], tmp_path / "out") as (cases, _):
        assert [case.id for case in cases] == ["two"]


def test_inputs_that_cannot_be_opened_do_not_stop_the_others(tmp_path: Path) -> None:
    good = volume(tmp_path / "good.nii.gz")
    damaged = tmp_path / "damaged.zip"
    with zipfile.ZipFile(damaged, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("doe_jane.nii", bytes(range(256)) * 64)
    content = bytearray(damaged.read_bytes())
    content[50:90] = bytes(40)  # within the compressed data
    damaged.write_bytes(content)
    endless = tmp_path / ("n" * 300 + ".nii.gz")
    with found_cases([damaged, endless, good], tmp_path / "out") as (cases, failures):
        assert [case.id for case in cases] == ["good"]
        assert set(failures) == {str(damaged), str(endless)}
        assert "cannot be unpacked" in str(failures[str(damaged)])
        assert "doe" not in str(failures[str(damaged)])


def test_a_zip_that_becomes_far_larger_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FREE_GIB", 2.0**-10)
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.nii", "b.nii"):
            archive.writestr(name, bytes(2**22))
    with found_cases([bomb], tmp_path / "out") as (cases, failures):
        assert cases == [] and "becomes 0.00781 GiB" in str(failures[str(bomb)])
    monkeypatch.setenv("MEDSEGDIFF_MAX_INFLATION", "2000")  # as the remedy says
    with found_cases([bomb], tmp_path / "out") as (cases, failures):
        assert [case.id for case in cases] == ["a", "b"] and not failures


def test_a_zip_that_the_disk_has_no_room_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as content:
        content.writestr("a.nii", bytes(2**20))
    monkeypatch.setattr(inputs.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**19))
    with found_cases([archive], tmp_path / "out") as (_, failures):
        assert "where 0.000488 are free. Let TMPDIR" in str(failures[str(archive)])


def photograph(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (3, 2)).save(path)
    return path


@pytest.mark.parametrize("ending", list_endings("volume", "photograph"))
def test_a_file_of_every_format_is_a_case(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"x.y{ending}").touch()
    for given in (tmp_path, tmp_path / f"x.y{ending}"):
        with found_cases([given], tmp_path / "out") as (cases, failures):
            assert [(case.id, case.image) for case in cases] == [
                ("x.y", (tmp_path / f"x.y{ending}",))
            ]
            assert failures == {}


def test_photographs_are_cases_where_there_is_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures, mixed, out = tmp_path / "pictures", tmp_path / "mixed", tmp_path / "pictures" / "out"
    photograph(pictures / "a" / "1.png"), photograph(pictures / "b" / "2.tif")
    photograph(out / "1" / "1_preview.png")  # of a former run
    volume(mixed / "x.nii"), photograph(mixed / "x.png")
    (mixed / "x.seg.nrrd").touch()
    with found_cases([pictures], out) as (cases, _):
        assert [case.id for case in cases] == ["1", "2"]
    with found_cases([mixed], out) as (cases, _):
        assert [case.image[0] for case in cases] == [mixed / "x.nii"]
    assert "1 photographs beside the volumes are left out" in caplog.text
    photograph(study(tmp_path / "study", "DOE", "T1") / "key.jpg")
    with found_cases([tmp_path / "study"], out) as ((case,), _):
        assert case.id.endswith("_1") and case.image != (tmp_path / "study" / "key.jpg",)


def study(folder: Path, patient: str, *descriptions: str) -> Path:
    """MR series of one study, of two slices each."""
    for number, description in enumerate(descriptions, start=1):
        write_dicom_series(
            np.full((3, 2, 2), number, np.uint16),
            np.eye(4),
            folder / str(number),
            number=number,
            description=description,
            patient=patient,
        )
    return folder


def test_series_of_a_study_as_channels(tmp_path: Path) -> None:
    folder = study(tmp_path / "a", "DOE", "T1 post", "T1", "flair_reg", "scout")
    options = DicomOptions(channels=("FLAIR", "T1"))
    with found_cases([folder], tmp_path / "out", options) as ((case,), failures):
        assert [one.description for one in case.image] == ["flair_reg", "T1"]  # type: ignore[union-attr]
        assert case.id.endswith("_3") and len(case.files) == 4 and failures == {}
    with found_cases([folder], tmp_path / "out") as (alone, _):
        assert len(alone) == 4 and case.id not in {one.id for one in alone}


def test_a_study_without_a_channel_does_not_stop_the_others(tmp_path: Path) -> None:
    (
        study(tmp_path / "both" / "a", "DOE", "T1", "FLAIR"),
        study(tmp_path / "both" / "b", "ROE", "T1"),
    )
    options = DicomOptions(channels=("T1", "FLAIR"))
    with found_cases([tmp_path / "both"], tmp_path / "out", options) as (cases, failures):
        assert len(cases) == 1
    ((name, error),) = failures.items()
    reason = str(error)
    assert name.startswith(f"{tmp_path / 'both'}, study ") and name.endswith(" of 2")
    assert "'FLAIR' has to fit one series, but fits none" in reason and "there is 1 (T1)" in reason
    assert "OE" not in reason


def test_what_an_input_without_images_holds_instead_is_told(tmp_path: Path) -> None:
    folder = study(tmp_path / "a", "DOE", "T1")
    for file in folder.rglob("*.dcm"):
        header = pydicom.dcmread(file)
        header.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        header.save_as(file)
    with found_cases([folder], tmp_path / "out") as (_, failures):
        assert "to segment (series 1, a localiser (2 images))" in str(failures[str(folder)])


def test_dicom_beside_volumes_is_segmented_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that someone once exported hides nothing, wherever it lies."""
    study(tmp_path / "given" / "series", "A", "T1")
    for export in (tmp_path / "given" / "old.nii.gz", tmp_path / "given" / "x" / "old.nii.gz"):
        volume(export)
        with found_cases([tmp_path / "given"], tmp_path / "out") as (cases, failures):
            assert failures == {}
            first, second = (case.image[0] for case in cases)
            assert first == export and getattr(second, "description", "") == "T1"
        export.unlink()


def test_dicom_that_is_no_image_beside_volumes_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for file in study(tmp_path / "series", "A", "T1").rglob("*.dcm"):
        header = pydicom.dcmread(file)
        header.Modality = "SEG"
        header.save_as(file)
    volume(tmp_path / "one.nii.gz")
    with found_cases([tmp_path], tmp_path / "out") as (cases, _):
        assert [case.id for case in cases] == ["one"]
    assert "no image but" in caplog.text and not (tmp_path / "out" / ".salt").exists()


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    volume(tmp_path / "one.nii.gz")
    (tmp_path / "two.nii.gz").symlink_to(tmp_path / "annex" / "nowhere")
    with found_cases([tmp_path], tmp_path / "out") as (cases, failures):
        assert [case.id for case in cases] == ["one"]
        (told,) = failures.values()
        assert "two.nii.gz: is a link to a file that is not there" in str(told)


def test_described_cases_keep_their_names_and_pixels(tmp_path: Path) -> None:
    files = [volume(tmp_path / f"BRATS_{n:03d}_0000.nii.gz") for n in (1, 2)]
    entries = [{"image": path.name, "case": f"BRATS_{n:03d}"} for n, path in enumerate(files, 1)]
    described = {"labels": {"0": "background", "1": "a"}, "training": entries}
    data = tmp_path / "dataset.json"
    data.write_text(json.dumps({**described, "tensorImageSize": "3D", "spacing": [0.5, 0.5]}))
    with found_cases([data], tmp_path / "out") as (cases, failures):
        assert [(case.id, case.spacing) for case in cases] == [
            ("BRATS_001", (0.5, 0.5)),
            ("BRATS_002", (0.5, 0.5)),
        ]
        assert failures == {}


@pytest.mark.parametrize("relative", ["input", "output", "both"])
def test_results_are_no_inputs_however_their_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("p1/x.nii.gz", "p2/y.nii.gz", "out/x/x_seg.nii.gz"):
        volume(tmp_path / name)
    given = tmp_path if relative == "output" else Path(".")
    output = tmp_path / "out" if relative == "input" else Path("out")
    with found_cases([given], output) as (cases, _):
        assert [case.id for case in cases] == ["x", "y"]
