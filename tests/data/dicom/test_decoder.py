"""Compressed pixels that contradict their header: a worker fails, and this process does not."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from medsegdiff.cases.inputs import found_cases
from medsegdiff.cases.one_by_one import one_by_one
from medsegdiff.core import worker_process
from medsegdiff.core.errors import InputError
from medsegdiff.core.worker_process import Worker
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.dicom import decoder, find_series, read_series
from medsegdiff.data.dicom.decoder import stored_values
from medsegdiff.data.images import read_image
from tests.data.dicom.files import as_ct, compress, edit, edit_all, made


def message(found: dict[str, Any]) -> bytes:
    text = json.dumps(found).encode()
    return struct.pack("<I", len(text)) + text


def lying(folder: Path) -> Path:
    """JPEG-LS whose header announces far more rows than the code stream has."""
    compress(as_ct(made(folder)), "JPEGLSLossless")
    return edit_all(folder, lambda header: setattr(header, "Rows", 0xFFFF))


def twelve_bits(header: Any) -> None:
    header.BitsStored, header.HighBit = 12, 11


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_series(find_series(folder)[0])
    return str(caught.value)


def test_a_stream_that_ends_the_decoder_fails_one_case(tmp_path: Path) -> None:
    lying(tmp_path / "in" / "a")
    made(tmp_path / "in" / "b", number=2)
    done = []

    def do(case: CaseInput) -> None:
        read_image(case.image[0])
        done.append(case.id)

    with found_cases([tmp_path / "in"], tmp_path / "out") as (cases, failures):
        errors = one_by_one(cases, failures, tmp_path / "out", do, "read")
    (failed,) = errors
    assert failed.endswith("_1") and len(done) == 1 and done[0].endswith("_2")
    assert "file 1 of 9" in str(errors[failed]) and "uncompressed" in errors[failed].remedy


def test_jpeg_of_twelve_bits(tmp_path: Path) -> None:
    folder = edit_all(made(tmp_path / "a"), twelve_bits)
    stored, _ = read_series(find_series(folder)[0])
    compress(folder, "JPEGExtendedProcess2_4")
    values, _ = read_series(find_series(folder)[0])
    assert stored.max() > 4000
    np.testing.assert_allclose(values, stored, atol=2)  # it is lossy


def test_a_decoder_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "endless.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(decoder, "_WORKER", "endless")
    monkeypatch.setattr(worker_process, "START_SECONDS", 0.0)
    monkeypatch.setenv("MEDSEGDIFF_DECODING_SECONDS", "0.2")
    said = refused(compress(as_ct(made(tmp_path / "a")), "JPEGLSLossless"))
    assert "longer than 0.2 s, the limit of MEDSEGDIFF_DECODING_SECONDS" in said


def test_a_decoder_gets_no_more_memory_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = compress(as_ct(made(tmp_path / "a")), "JPEG2000Lossless")
    assert read_series(find_series(folder)[0])[0].any()
    monkeypatch.setenv("MEDSEGDIFF_DECODING_GIB", "1e-3")
    assert "the decoder fails" in refused(folder)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"x" * 99,
        message({}),
        message({"type": "<u2", "shape": [2, 2]}) + bytes(8),
        message({"type": "<u2", "shape": [14, 12]}) + bytes(14 * 12),
    ],
)
def test_a_worker_is_not_believed(
    answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd.py").write_text(f"import sys; sys.stdout.buffer.write({answer!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(decoder, "_WORKER", "odd")
    folder = compress(as_ct(made(tmp_path / "a")), "JPEGLSLossless")
    assert "the decoder fails" in refused(folder)


@pytest.mark.parametrize("syntax", [None, "RLELossless"])
def test_other_pixels_start_no_worker(
    syntax: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = as_ct(made(tmp_path / "a"))
    if syntax:
        compress(folder, syntax)

    def started(module: str) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(decoder, "Worker", started)
    assert read_series(find_series(folder)[0])[0].any()


def test_the_worker_ends_with_the_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = []

    def started(module: str) -> Worker:
        workers.append(Worker(module))
        return workers[-1]

    monkeypatch.setattr(decoder, "Worker", started)
    read_series(find_series(compress(as_ct(made(tmp_path / "a")), "JPEG2000Lossless"))[0])
    (worker,) = workers  # one for all nine files
    assert worker.has_ended


def test_copies_are_compared_by_a_worker(tmp_path: Path) -> None:
    """Of an image the archive has two files that contradict their headers."""
    first, *others = sorted(lying(tmp_path / "a").iterdir())
    for file in others:
        file.unlink()
    shutil.copy(first, first.with_name("copy.dcm"))
    edit(first, lambda header: setattr(header, "PixelData", header.PixelData + bytes(2)))
    (series,) = find_series(tmp_path / "a")
    assert len(series.files) == 2  # it cannot be said that they are the same


def test_a_worker_that_has_ended_is_replaced(tmp_path: Path) -> None:
    bad, good = lying(tmp_path / "a"), compress(as_ct(made(tmp_path / "b")), "JPEGLSLossless")
    files = [next(folder.iterdir()) for folder in (bad, good)]
    headers = [pydicom.dcmread(file) for file in files]
    with decoder.decoding() as opened:
        with pytest.raises(RuntimeError, match="the decoder fails"):
            stored_values(headers[0], files[0], opened)
        assert stored_values(headers[1], files[1], opened).any()
