from __future__ import annotations

from pathlib import Path

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.fitness import check
from medsegdiff.data.layouts.bids import chosen_images
from medsegdiff.data.manifest import load_manifest
from tests.data.layouts.files import image, label, save


@pytest.mark.parametrize("session", ["", "ses-1"])
@pytest.mark.parametrize("kind", ["dseg", "label-hipp_dseg", "label-hipp_mask", "space-orig_dseg"])
def test_images_and_derivatives(tmp_path: Path, session: str, kind: str) -> None:
    ses = f"{session}_" if session else ""
    for number in (1, 2, 3):
        sub, place = f"sub-{number:02d}", Path(f"sub-{number:02d}") / session / "anat"
        save(tmp_path / place / f"{sub}_{ses}T1w.nii.gz", image(number))
        save(tmp_path / place / f"../func/{sub}_{ses}task-rest_bold.nii.gz", image(number + 10))
        derived = tmp_path / "derivatives" / "seg" / place
        save(derived / f"{sub}_{ses}{kind}.nii.gz", label(1))
        save(derived / f"{sub}_{ses}desc-preproc_T1w.nii.gz", image(number + 20))
    manifest = load_manifest(tmp_path)
    assert [case.patient for case in manifest.cases] == ["01", "02", "03"]
    assert all(len(case.labels) == 1 for case in manifest.cases)
    assert not any("derivatives" in case.images[0].parts for case in manifest.cases)
    assert manifest.channels == ("T1w",)
    assert manifest.labels[1] == ("hipp" if "hipp" in kind else "class 1")
    assert check(manifest).fit


def test_one_contrast_and_one_kind_of_label_are_taken_and_the_others_named(tmp_path: Path) -> None:
    for number in (1, 2):
        sub, place = f"sub-{number}", Path(f"sub-{number}") / "anat"
        save(tmp_path / place / f"{sub}_T1w.nii.gz", image(number))
        save(tmp_path / place / f"{sub}_FLAIR.nii.gz", image(number + 10))
        for kind in ("label-left_mask", "dseg"):
            save(tmp_path / "derivatives" / "p" / place / f"{sub}_{kind}.nii.gz", label(1))
    manifest = load_manifest(tmp_path)
    assert {case.images[0].name for case in manifest.cases} == {
        "sub-1_T1w.nii.gz",
        "sub-2_T1w.nii.gz",
    }
    assert {case.labels[0].name for case in manifest.cases} == {
        "sub-1_dseg.nii.gz",
        "sub-2_dseg.nii.gz",
    }
    assert any("FLAIR" in note for note in manifest.notes)
    assert any("left" in note for note in manifest.notes)


def test_sessions_have_their_own_labels_and_one_patient(tmp_path: Path) -> None:
    for session in ("ses-1", "ses-2"):
        place = Path("sub-1") / session / "anat"
        save(tmp_path / place / f"sub-1_{session}_T1w.nii.gz", image(ord(session[-1])))
        save(tmp_path / "derivatives/p" / place / f"sub-1_{session}_dseg.nii.gz", label(1))
    cases = load_manifest(tmp_path).cases
    assert {case.patient for case in cases} == {"1"}
    assert [case.labels[0].parent.parent.name for case in cases] == ["ses-1", "ses-2"]


def test_a_broken_link_is_named(tmp_path: Path) -> None:
    save(tmp_path / "sub-1/anat/sub-1_T1w.nii.gz", image(1))
    save(tmp_path / "derivatives/p/sub-1/anat/sub-1_dseg.nii.gz", label(1))
    (tmp_path / "sub-2/anat").mkdir(parents=True)
    (tmp_path / "sub-2/anat/sub-2_T1w.nii.gz").symlink_to("../../.git/annex/objects/x")
    rules = [problem.rule for problem in check(tmp_path).problems]
    assert any("a link to a file that is not there" in rule for rule in rules)


def test_names_of_values_from_the_table(tmp_path: Path) -> None:
    save(tmp_path / "sub-1/anat/sub-1_T1w.nii.gz", image(1))
    save(tmp_path / "derivatives/p/sub-1/anat/sub-1_dseg.nii.gz", label(4, 9))
    (tmp_path / "derivatives/p/dseg.tsv").write_text("index\tname\n4\tcaudate\n9\tputamen\n")
    assert load_manifest(tmp_path).labels == {0: "background", 1: "caudate", 2: "putamen"}


def test_without_labels(tmp_path: Path) -> None:
    save(tmp_path / "sub-1/anat/sub-1_T1w.nii.gz", image(1))
    with pytest.raises(InputError, match="derivatives"):
        load_manifest(tmp_path)


def test_files_that_a_file_system_leaves_beside_others_are_passed_over(tmp_path: Path) -> None:
    for number in (1, 2):
        place = Path(f"sub-{number}") / "anat"
        save(tmp_path / place / f"sub-{number}_T1w.nii.gz", image(number))
        (tmp_path / place / f"._sub-{number}_T1w.nii.gz").write_bytes(b"\x00\x05\x16\x07")
        derived = tmp_path / "derivatives" / "seg"
        save(derived / place / f"sub-{number}_dseg.nii.gz", label(1))
        (derived / "._a_dseg.tsv").write_bytes(b"\xff\x05\x16\x07")
    manifest = load_manifest(tmp_path)
    assert [case.id for case in manifest.cases] == ["sub-1_T1w", "sub-2_T1w"]
    assert check(manifest).fit


def test_images_of_other_kinds_are_named(tmp_path: Path) -> None:
    for place in ("sub-01/anat/sub-01_T1w", "sub-01/ses-1/func/sub-01_task-rest_bold"):
        save(tmp_path / f"{place}.nii.gz", image(1))
    save(tmp_path / "sub-01/dwi/sub-01_dwi.nii.gz", image(2))
    images, notes = chosen_images(tmp_path)
    assert [path.name for path in images] == ["sub-01_T1w.nii.gz"]
    assert notes == ["only images of anat/ are taken, and 1 of dwi/, 1 of func/ left out"]
