"""Damaged answers of a DICOMweb server; what is written was in the answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from medsegdiff.dicomweb import client
from medsegdiff.dicomweb.address import Address
from medsegdiff.dicomweb.stow import store
from medsegdiff.dicomweb.wado import fetch
from medsegdiff.phantoms.cohort import write_dicom_series
from tests.dicomweb.fake_server import (
    Answer,
    FakeServer,
    Request,
    as_json,
    multipart,
    serving,
)
from tests.fuzz.isolation import Attempt
from tests.fuzz.mutations import damaged, damaged_json, odd_value

_STATES = (200, 200, 200, 200, 200, 202, 204, 206, 301, 400, 401, 404, 409, 429, 500, 503)


def attempt_dicomweb(folder: Path) -> Attempt:
    """A series of four images, which is fetched and stored."""
    volume = np.random.default_rng(0).integers(0, 3000, (7, 6, 4)).astype(np.uint16)
    files = write_dicom_series(volume, np.eye(4), folder / "series")
    running, until_the_end = list[FakeServer](), ExitStack()

    def attempt(rng: np.random.Generator, place: Path) -> bool:
        if not running:  # in the process that tries the inputs
            client.FIRST_WAIT_MS, client.TIMEOUT = 1, (2.0, 0.5)
            running.append(until_the_end.enter_context(serving()))
        (server,) = running
        if rng.random() < 0.7:
            _fetch(server, files, rng, place)
        else:
            _store(server, files[:1], rng)
        return True

    return attempt


def _fetch(server: FakeServer, files: list[Path], rng: np.random.Generator, place: Path) -> None:
    status, headers, body = multipart([file.read_bytes() for file in files])
    answer = _damaged((status, headers, body), rng)
    server.answer = lambda request: answer
    uid = "1.2.88" if rng.random() < 0.5 else None
    count = fetch(Address(server.url, "1.2.77", uid, 1), place)
    assert answer[1]["Content-Type"] != headers["Content-Type"] or b"--line--" in answer[2][-1100:]
    written = list(place.iterdir())
    assert len(written) == count
    for file in written:
        instance = pydicom.dcmread(file, force=True)
        for keyword in ("SOPInstanceUID", "ImagePositionPatient", "PixelData"):
            raw = instance.get_item(keyword)  # bytes, not yet decoded
            assert raw is None or bytes(raw.value or b"").rstrip(b"\0 ") in answer[2]


def _store(server: FakeServer, files: list[Path], rng: np.random.Generator) -> None:
    """The answers to the question whether it is there, to storing, and to the question again."""
    uid = str(pydicom.dcmread(files[0]).SOPInstanceUID)
    there = [{"00080018": {"vr": "UI", "Value": [uid]}}]
    reference = {"00081155": {"vr": "UI", "Value": [uid]}}
    failed = reference | {"00081197": {"vr": "US", "Value": [0x0110]}}
    stored = {"00081199": {"vr": "SQ", "Value": [reference]}}
    refused = {"00081198": {"vr": "SQ", "Value": [failed]}}
    answers: Iterator[Any] = iter([[], stored if rng.random() < 0.7 else refused, there])
    spoilt = int(rng.integers(3))

    def answer(request: Request) -> Answer:
        content = next(answers, there)
        one = as_json(content)
        nonlocal spoilt
        spoilt -= 1
        if spoilt >= 0:
            return one
        spoilt = 10**6
        if rng.random() < 0.6:
            text = json.dumps(damaged_json(content, rng)).encode("utf-8", "surrogatepass")
            return 200, one[1], text
        return _damaged(one, rng)

    server.answer = answer
    store(files, server.url)


def _damaged(answer: Answer, rng: np.random.Generator) -> Answer:
    status, headers, body = answer
    headers = dict(headers)
    match int(rng.integers(5)):
        case 0:
            status = _STATES[int(rng.integers(len(_STATES)))]
        case 1:
            value = str(odd_value(rng)).encode("ascii", "replace").decode().replace("\0", "")
            headers["Content-Type"] = value if rng.random() < 0.5 else headers["Content-Type"][:-3]
        case 2:
            headers["Content-Length"] = str(len(body) // 2)
        case 3:
            body = damaged(body, rng, 300)
        case 4:
            body = damaged(body, rng)
    return status, headers, body
