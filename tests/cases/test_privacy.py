"""Nothing that DICOM headers or folders say of a patient is in any file or log but the SEG."""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging
import re
import shutil
import sqlite3
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from typer.testing import CliRunner

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.cli.main import app
from medsegdiff.phantoms.cohort import write_cohort, write_dicom_series
from tests.tiny_bundle import quick

HEADERS = {
    "PatientName": "Qzmarkname",  # one component: highdicom warns of it
    "PatientID": "QZMARKID",
    "PatientBirthDate": "19370401",
    "PatientAddress": "QZMARKSTREET 1",
    "StudyDate": "20010911",
    "StudyDescription": "head of QZMARKSTUDY",
    "StudyID": "QZMARKSTUDYID",
    "SeriesDescription": "t1 of QZMARKSERIES",
    "ProtocolName": "QZMARKPROTOCOL",
    "InstitutionName": "QZMARKINSTITUTE",
    "StationName": "QZMARKSTATION",
    "AccessionNumber": "QZMARKACCESSION",
    "ReferringPhysicianName": "Qzmarkdoctor",
    "OperatorsName": "QZMARKOPERATOR",
    "PatientComments": "QZMARKCOMMENT",
    "AcquisitionDate": "20010911",
}
MARKS = ("qzmark", "19370401", "20010911")
"""What is looked for, in small letters; the identifiers of each series besides."""


def write_marked(folder: Path, number: int, volume: np.ndarray | None = None) -> list[Path]:
    """A series whose headers, files and folder are full of marks."""
    if volume is None:
        rng = np.random.default_rng(number)
        volume = rng.integers(0, 1000, (20, 18, 10)).astype(np.uint16)
    plain = write_dicom_series(volume, np.eye(4), folder / "plain", number=number, seed=number)
    marked = folder / f"Qzmarklastname_{number}"
    marked.mkdir(parents=True, exist_ok=True)
    files = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for file in plain:
            header = pydicom.dcmread(file)
            for keyword, value in HEADERS.items():
                setattr(header, keyword, value)
            files.append(marked / f"qzmarkfile_{file.stem}")
            header.save_as(files[-1])
    shutil.rmtree(folder / "plain")
    return files


def identifiers(file: Path) -> tuple[str, ...]:
    header = pydicom.dcmread(file)
    return header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID


def contents(data: bytes) -> Iterator[bytes]:
    """Some bytes, and whatever is packed in them: gzip, zip, base64, texts of a PNG."""
    yield data
    if data[:2] == b"\x1f\x8b":
        yield from contents(gzip.decompress(data))
    if data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield from contents(archive.read(name))
    if data[:4] == b"\x89PNG":
        yield repr(Image.open(io.BytesIO(data)).info).encode()
    for packed in re.findall(rb"[A-Za-z0-9+/]{60,}={0,2}", data):
        yield from contents(base64.b64decode(packed[: len(packed) // 4 * 4]))


def in_file(path: Path) -> bytes:
    """All that a file holds, unpacked."""
    parts = list(contents(path.read_bytes()))
    if parts[0].startswith(b"SQLite format 3"):
        with sqlite3.connect(path) as base:
            parts += [line.encode() for line in base.iterdump()]
    return b"\n".join(parts)


def assert_clean(folder: Path, private: tuple[str, ...], *, without: tuple[str, ...] = ()) -> None:
    """No file below a folder, nor its name, holds what is private."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        text = path.relative_to(folder).as_posix().encode()
        if not path.name.endswith(without or ("/",)):
            text += b"\n" + in_file(path)
        found = [mark for mark in private if mark.encode() in text.lower()]
        assert not found, f"{path.relative_to(folder)} holds {found}"


def invoke(line: str, caplog: pytest.LogCaptureFixture, code: int = 0) -> str:
    """All that a command prints, logs and warns of when it is as talkative as it can be."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        result = CliRunner().invoke(app, [*line.split(), "-v", "--debug"])
    assert result.exit_code == code, result.output
    told = [result.output, caplog.text, *(str(one.message) for one in warned)]
    return "\n".join(told).lower()


def private_of(text: str, private: tuple[str, ...]) -> list[str]:
    return [mark for mark in private if mark in text]


def test_the_search_finds_what_is_hidden(tmp_path: Path) -> None:
    secret = b"\x00" * 200 + b"Qzmarkname" + b"\x00" * 200
    picture = io.BytesIO()
    Image.new("L", (2, 2)).save(picture, "PNG", pnginfo=_text_chunk("Qzmarkname"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.gz", gzip.compress(secret))
    (tmp_path / "b.html").write_bytes(b'<img src="' + base64.b64encode(gzip.compress(secret * 9)))
    (tmp_path / "c.png").write_bytes(picture.getvalue())
    with sqlite3.connect(tmp_path / "d.db") as base:
        base.execute("create table t as select 'Qzmarkname' as name")
    for path in tmp_path.iterdir():
        assert b"qzmarkname" in in_file(path).lower(), path


def _text_chunk(text: str) -> PngInfo:
    info = PngInfo()
    info.add_text("comment", text, zip=True)
    return info


def test_segmenting(bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study, out, key = tmp_path / "study", tmp_path / "out", tmp_path / "key.csv"
    good, broken = write_marked(study, 1), write_marked(study, 2)
    broken[4].unlink()
    private = (*MARKS, *identifiers(good[0]), *identifiers(broken[0]))
    line = f"segment {study} --bundle {bundle.root} --output {out} --members 2 --device cpu"
    line += " --format nifti,nrrd,dicom-seg --save-members"
    told = invoke(f"{line} --key {key}", caplog, code=1)
    assert "not evenly spaced" in told and private_of(told, private) == []
    assert_clean(out, private, without=(".dcm",))
    (seg,) = (pydicom.dcmread(path) for path in out.rglob("*_seg.dcm"))
    for keyword in ("PatientName", "PatientID", "StudyDate", "StudyInstanceUID", "AccessionNumber"):
        assert seg[keyword].value == pydicom.dcmread(good[0])[keyword].value
    assert private_of(key.read_text().lower(), private)  # it was asked for

    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in (*good, *broken[:4], *broken[5:]):
            archive.write(file, file.relative_to(study))
    told = invoke(line.replace(str(study), f"{tmp_path}/study.zip"), caplog, code=1)
    assert "is complete" in told and private_of(told, private) == []
    assert_clean(out, private, without=(".dcm",))


def test_the_page_of_cases_names_no_path(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_marked(tmp_path / "good", 1)
    given = tmp_path / "Qzmarklastname"
    write_marked(given, 2)[4].unlink()
    line = f"segment {tmp_path}/good {given} {given}/none --bundle {bundle.root} --device cpu"
    invoke(f"{line} --output {tmp_path}/out --members 1", caplog, code=1)
    page = in_file(tmp_path / "out" / "report.html").lower()
    assert b"not evenly spaced" in page and b"no such file or folder" in page
    assert b"qzmark" not in page


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """Five DICOM series with labels, named in a description that also says whose they are."""
    cohort = write_cohort(tmp_path / "cohort", cases=5, size=16, classes=2)
    folder = tmp_path / "data"
    entries = []
    for n, entry in enumerate(json.loads(cohort.read_text())["training"]):
        image, label = (nib.load(cohort.parent / entry[name]) for name in ("image", "label"))
        files = write_marked(folder, n, np.asarray(image.dataobj).astype(np.uint16))
        marked = folder / f"qzmarklabel_{n}.nii.gz"
        # as the phantom's series lie: read as they are written
        nib.save(nib.Nifti1Image(np.asarray(label.dataobj), np.eye(4)), marked)
        paths = {"image": files[0].parent.name, "label": marked.name}
        entries.append(paths | {"case": f"case_{n}", "patient": f"QZMARKID{n}"})
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "name": "private",
                "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
                "modality": {"0": "MRI"},
                "training": entries,
            }
        )
    )
    return folder


def test_training_and_its_record_in_mlflow(
    untrained: Bundle,
    described: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    private = (*MARKS, *identifiers(next(described.glob("Qzmark*/*"))))
    run = tmp_path / "runs" / "first"
    run.parent.mkdir()
    monkeypatch.chdir(run.parent)  # where MLflow puts what it is given
    settings = " ".join(f"--set {name}={value}" for name, value in quick(run).items())
    line = f"train {untrained.root} --data {described} --output {run} --device cpu {settings}"
    told = invoke(line, caplog)
    assert private_of(told, private) == []
    assert json.loads((run / "cases.json").read_text())["validation"]
    (recorded,) = (run.parent / "mlruns").rglob("cases.json")
    assert recorded.read_bytes() == (run / "cases.json").read_bytes()
    assert (run.parent / "mlruns.db").is_file()
    assert_clean(run.parent, private)


def test_checking_and_evaluating(
    described: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = described / "dataset.json"
    description = json.loads(file.read_text())
    patients = [entry["patient"] for entry in description["training"]]
    description["folds"] = [patients[:2], [*patients[1:3], "QZMARKSTRANGER"]]
    file.write_text(json.dumps(description))
    told = invoke(f"check {described}", caplog, code=1)
    assert "folds[0][1], folds[1][0]" in told and private_of(told, MARKS) == []

    for n in range(3):
        folder = tmp_path / "out" / f"case_{n}"
        folder.mkdir(parents=True)
        shutil.copy(described / f"qzmarklabel_{n}.nii.gz", folder / f"case_{n}_seg.nii.gz")
    moved = nib.Nifti1Image(np.zeros((3, 3, 3), np.uint8), np.eye(4))
    nib.save(moved, described / "qzmarklabel_0.nii.gz")
    line = f"evaluate --data {described} --predictions {tmp_path}/out --output {tmp_path}/report"
    told = invoke(line, caplog, code=1)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [one["patient"] for one in report["cases"]] == ["patient 2", "patient 3"]
    assert report["failures"].keys() == {"case_0"}
    assert_clean(tmp_path / "report", MARKS, without=("failures.json",))
