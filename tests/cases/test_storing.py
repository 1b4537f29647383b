"""When something can be stored, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from medsegdiff.cases import storing
from medsegdiff.cases.inputs import parse_inputs
from medsegdiff.cases.storing import ORIGIN, check_store, store_case
from medsegdiff.core.errors import UsageError
from medsegdiff.core.types import OutputFormat
from medsegdiff.data.case_input import CaseInput
from medsegdiff.dicomweb.address import parse_address

STUDY = "https://pacs.example.org/dicom-web/studies/1.2"
FORMATS: tuple[OutputFormat, ...] = ("nifti", "dicom-seg")


def test_paths_and_addresses_are_told_apart() -> None:
    assert parse_inputs(["a.nii", Path("b"), STUDY]) == [
        Path("a.nii"),
        Path("b"),
        parse_address(STUDY, 3),
    ]


def test_nothing_is_stored_unless_asked() -> None:
    assert check_store(None, ("nifti",), [Path("a")]) is None


def test_the_server_is_the_one_named_or_the_images_own() -> None:
    assert check_store(ORIGIN, FORMATS, parse_inputs([STUDY])) == ORIGIN
    assert check_store(ORIGIN, ("secondary-capture",), parse_inputs([STUDY])) == ORIGIN
    other = "http://archive.example.org/root/"
    assert check_store(other, FORMATS, [Path("a")]) == "http://archive.example.org/root"


@pytest.mark.parametrize(
    ("target", "formats", "inputs", "says"),
    [
        (ORIGIN, ("nifti",), [STUDY], "Add --format dicom-seg"),
        (ORIGIN, FORMATS, [STUDY, "folder"], "folder does not come from a DICOMweb server"),
        ("archive", FORMATS, ["folder"], "not the address of a DICOMweb server"),
    ],
)
def test_what_cannot_be_stored_is_wrong_usage(
    target: str, formats: tuple, inputs: list[str], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        check_store(target, formats, parse_inputs(inputs))


def test_all_dicom_objects_of_the_case_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[list[str], str]] = []
    objects = ["a_1_capture_0001.dcm", "a_1_mean.dcm", "a_1_seg.dcm"]

    def note(files: list[Path], service: str) -> str:
        sent.append(([file.name for file in files], service))
        return "stored"

    monkeypatch.setattr(storing, "store", note)
    for name in (*objects, "a_1_seg.nii.gz", "b_seg.dcm"):
        (tmp_path / name).touch()
    case = CaseInput("a_1", (), service="https://origin")
    store_case(case, tmp_path, ORIGIN)
    store_case(case, tmp_path, "https://other")
    assert sent == [(objects, "https://origin"), (objects, "https://other")]
