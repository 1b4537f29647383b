"""From a real Orthanc server, through ``medsegdiff segment``, and back into the same study."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from typer.testing import CliRunner, Result

from medsegdiff.cli.main import app
from medsegdiff.dicomweb.client import PASSWORD, TOKEN, USER
from medsegdiff.phantoms.cohort import write_cohort, write_dicom_series
from tests.pacs.conftest import Orthanc

Segment = Callable[..., Result]
"""User, address, further options -> what the command did."""


@dataclass(frozen=True)
class Upload:
    """A series on the server.

    Attributes:
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        client: dicomweb-client itself, as the user who may store.
        url: address of the study.
    """

    study: str
    series: str
    client: DICOMwebClient
    url: str

    def segmentations(self) -> list[pydicom.Dataset]:
        """All SEG objects of the study, as WADO-RS sends them."""
        everything = self.client.retrieve_study(self.study)
        return [one for one in everything if one.Modality == "SEG"]


@pytest.fixture(scope="module")
def upload(orthanc: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Upload:
    """A generated volume of the size that the bundle was made for, stored by dicomweb-client."""
    folder = tmp_path_factory.mktemp("phantom")
    write_cohort(folder / "cohort", cases=1, size=32, classes=2)
    image = nib.load(folder / "cohort" / "imagesTr" / "phantom_000.nii.gz")
    volume = np.asarray(image.dataobj).astype(np.uint16)
    files = write_dicom_series(volume, image.affine, folder / "series", patient="DOE^JANE")
    instances = [pydicom.dcmread(file) for file in files]
    session = create_session_from_user_pass("writer", orthanc.users["writer"])
    client = DICOMwebClient(orthanc.url, session)
    client.store_instances(instances)
    study, series = instances[0].StudyInstanceUID, instances[0].SeriesInstanceUID
    return Upload(study, series, client, f"{orthanc.url}/studies/{study}")


@pytest.fixture
def segment(orthanc: Orthanc, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Segment:
    """Runs the command with two members, as one of the server's users."""
    monkeypatch.delenv(TOKEN, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def run(user: str, url: str, *options: str) -> Result:
        monkeypatch.setenv(USER, user)
        monkeypatch.setenv(PASSWORD, orthanc.users.get(user, ""))
        line = ["segment", url, "--bundle", "hippocampus_mr", "--output", str(tmp_path / "out")]
        result = CliRunner().invoke(app, [*line, "--members", "2", "--device", "cpu", *options])
        assert list((tmp_path / "temporary").iterdir()) == []  # no images are left behind
        return result

    return run


STORE = ("--format", "nifti,dicom-seg", "--store")


def test_a_segmentation_goes_back_into_its_study(
    segment: Segment, upload: Upload, tmp_path: Path
) -> None:
    key = tmp_path / "key.csv"
    result = segment("writer", f"{upload.url}/series/{upload.series}", *STORE, "--key", str(key))
    assert result.exit_code == 0, result.output
    host = upload.url.split("/")[2]
    assert f"{host} has stored 4 of 4 objects" in " ".join(result.stderr.split())
    (case,) = (path.name for path in (tmp_path / "out").iterdir() if path.is_dir())
    case_folder = tmp_path / "out" / case
    stored = {seg.SegmentationType: seg for seg in upload.segmentations()}
    assert set(stored) == {"BINARY", "FRACTIONAL"}
    for seg in stored.values():
        assert seg.StudyInstanceUID == upload.study and seg.PatientID == "DOE^JANE"
        assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == upload.series
    assert_same_mask(stored["BINARY"], nib.load(case_folder / f"{case}_seg.nii.gz"))
    assert key.read_text().splitlines()[1] == f"{case},{upload.study},{upload.series},1,{host}" + (
        " (input 1)"
    )
    for private in (upload.study, upload.series, "DOE"):
        assert private not in result.output
        for path in (*case_folder.glob("*.json"), tmp_path / "out" / "report.html"):
            assert private not in path.read_text()

    record = case_folder / f"{case}_run.json"
    before = record.stat().st_mtime_ns
    again = segment("writer", upload.url, *STORE)  # the whole study, which now holds the SEG too
    assert again.exit_code == 0, again.output
    assert "has stored 0 of 4 objects, the others were there" in " ".join(again.stderr.split())
    assert record.stat().st_mtime_ns == before and len(upload.segmentations()) == 2


def test_a_refusal_fails_the_case_and_a_later_call_stores_it(
    segment: Segment, upload: Upload, tmp_path: Path
) -> None:
    before = len(upload.segmentations())
    refused = segment("rater", upload.url, *STORE)
    assert refused.exit_code == 1
    assert "refuses access to it (HTTP 403)" in refused.stderr
    (case,) = json.loads((tmp_path / "out" / "failures.json").read_text())
    record = tmp_path / "out" / case / f"{case}_run.json"
    assert record.is_file() and (record.parent / f"{case}_seg.dcm").is_file()
    assert len(upload.segmentations()) == before
    sampled = record.stat().st_mtime_ns
    allowed = segment("writer", upload.url, *STORE)
    assert allowed.exit_code == 0, allowed.output
    assert record.stat().st_mtime_ns == sampled
    assert len(upload.segmentations()) == before + 2


def test_strangers_and_unknown_studies_are_told(
    segment: Segment, upload: Upload, orthanc: Orthanc
) -> None:
    stranger = segment("nobody", upload.url)
    assert stranger.exit_code == 1 and "HTTP 401" in stranger.stderr
    unknown = segment("writer", f"{orthanc.url}/studies/1.2.3")
    assert unknown.exit_code == 1 and "knows no such study" in unknown.stderr
    for result in (stranger, unknown):
        assert upload.study not in result.output and "1.2.3" not in result.output


def assert_same_mask(seg: pydicom.Dataset, nifti: nib.Nifti1Image) -> None:
    """Every voxel of the label map is in the SEG at its place, and nothing else is."""
    volume = highdicom.seg.Segmentation.from_dataset(seg).get_volume(combine_segments=True)
    mask = np.asarray(nifti.dataobj)
    marked = np.argwhere(mask > 0)
    assert len(marked), "an empty mask shows nothing"
    to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ nifti.affine
    to_index = np.linalg.inv(volume.affine) @ to_lps
    place = marked @ to_index[:3, :3].T + to_index[:3, 3]
    index = np.rint(place).astype(int)
    assert np.abs(place - index).max() < 0.01
    np.testing.assert_array_equal(volume.array[tuple(index.T)], mask[tuple(marked.T)])
    assert np.count_nonzero(volume.array) == len(marked)
