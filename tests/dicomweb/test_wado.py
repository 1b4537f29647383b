"""Instances from a server: what arrives, and every way in which it can fail."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import UID

from medsegdiff.core.errors import InputError
from medsegdiff.dicomweb import client
from medsegdiff.dicomweb.address import Address
from medsegdiff.dicomweb.wado import fetch
from tests.dicomweb.fake_server import Answer, FakeServer, multipart

STUDY, SERIES = "1.2.77", "1.2.88"


def study(server: FakeServer) -> Address:
    return Address(server.url, STUDY, None, 3)


def refused(server: FakeServer, folder: Path) -> str:
    """The error's words, which name the server and neither study nor series."""
    with pytest.raises(InputError) as error:
        fetch(study(server), folder)
    assert error.value.subject == f"{server.host} (input 3)" and error.value.__cause__ is None
    assert STUDY not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("uid", [None, SERIES])
def test_instances_arrive_as_they_are(
    uid: str | None, server: FakeServer, series: list[Path], tmp_path: Path
) -> None:
    server.answer = lambda request: multipart([file.read_bytes() for file in series])
    (tmp_path / "got").mkdir()
    assert fetch(Address(server.url, STUDY, uid, 1), tmp_path / "got") == len(series)
    (request,) = server.requests
    assert request.path == f"/root/studies/{STUDY}" + (f"/series/{uid}" if uid else "")
    assert "transfer-syntax=*" in request.headers["accept"]
    got = {file.read_bytes() for file in (tmp_path / "got").iterdir()}
    assert got == {file.read_bytes() for file in series}


def test_the_order_of_the_answer_does_not_matter(
    server: FakeServer, series: list[Path], tmp_path: Path
) -> None:
    listings = []
    for name, files in (("a", series), ("b", [*reversed(series), series[0]])):
        answer = multipart([file.read_bytes() for file in files])
        server.answer = partial(lambda answer, request: answer, answer)
        (tmp_path / name).mkdir()
        assert fetch(study(server), tmp_path / name) == len(series)
        listings.append({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()})
    assert listings[0] == listings[1]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_names_of_files_are_ours(server: FakeServer, series: list[Path], tmp_path: Path) -> None:
    evil = pydicom.dcmread(series[0])
    evil.SOPInstanceUID = evil.file_meta.MediaStorageSOPInstanceUID = UID("../../1.2.3")
    evil.save_as(series[0], enforce_file_format=True)
    server.answer = lambda request: multipart([series[0].read_bytes()])
    (tmp_path / "deep" / "got").mkdir(parents=True)
    fetch(study(server), tmp_path / "deep" / "got")
    assert len(list((tmp_path / "deep" / "got").iterdir())) == 1
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["got"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, {}, b""), r"asks for credentials.*401.*MEDSEGDIFF_DICOMWEB_TOKEN.*netrc"),
        ((403, {}, b""), r"refuses access.*403"),
        ((404, {}, b""), r"knows no such study.*404"),
        ((500, {}, b"1.2.77"), r"HTTP 500"),
        ((503, {}, b""), r"is busy.*503.*later"),
        ((204, {}, b""), r"sent no instance"),
        (multipart([]), r"sent no instance"),
        (multipart([b"not DICOM at all"]), r"other than DICOM"),
        ((200, {"Content-Type": "text/html"}, b"<html>Log in</html>"), r"other than DICOM"),
        ((200, {"Content-Type": "application/dicom+json"}, b"[]"), r"other than DICOM"),
        (
            (200, {"Content-Type": "multipart/related; boundary=line"}, b"--line\r\nx"),
            r"breaks off",
        ),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), r"to another server"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else "",
)
def test_what_a_server_answers_is_told(
    answer: Answer, says: str, server: FakeServer, tmp_path: Path
) -> None:
    server.answer = lambda request: answer
    with pytest.raises(InputError, match=says):
        fetch(study(server), tmp_path)
    refused(server, tmp_path)
    attempts = client.ATTEMPTS if answer[0] in (302, 503) else 1
    assert len(server.requests) == 2 * attempts


def test_a_busy_server_is_asked_again(
    server: FakeServer, series: list[Path], tmp_path: Path
) -> None:
    answers = [(503, {}, b""), (429, {}, b""), multipart([series[0].read_bytes()])]
    server.answer = lambda request: answers[len(server.requests) - 1]
    assert fetch(study(server), tmp_path) == 1


def test_a_transfer_that_breaks_off_is_told(
    server: FakeServer, series: list[Path], tmp_path: Path
) -> None:
    status, headers, body = multipart([file.read_bytes() for file in series])
    server.answer = lambda request: (
        status,
        headers | {"Content-Length": str(2 * len(body)), "Connection": "close"},
        body[: len(body) // 2],
    )
    assert "breaks off" in refused(server, tmp_path) or "in time" in refused(server, tmp_path)


def test_an_answer_that_ends_before_its_end_is_told(
    server: FakeServer, series: list[Path], tmp_path: Path
) -> None:
    """Its length agrees, so that the transport sees nothing: slices would be missing."""
    status, headers, body = multipart([file.read_bytes() for file in series])
    borders = [n for n in range(len(body)) if body.startswith(b"\r\n--line", n)]
    for end in (*borders[1:], borders[2] + 400, len(body) - 1):
        cut = body[:end]
        server.answer = partial(lambda cut, request: (status, headers, cut), cut)
        assert "breaks off" in refused(server, tmp_path)


def test_no_server_and_a_silent_one_are_told(server: FakeServer, tmp_path: Path) -> None:
    nobody = Address("http://127.0.0.1:1/root", STUDY, None, 1)
    with pytest.raises(InputError, match=r"^127\.0\.0\.1:1 \(input 1\): cannot be reached"):
        fetch(nobody, tmp_path)

    def sleep(request: Any) -> Answer:
        time.sleep(1.0)
        return 404, {}, b""

    server.answer = sleep
    assert "in time" in refused(server, tmp_path)


def test_a_full_disk_is_not_the_servers_fault(
    server: FakeServer, series: list[Path], tmp_path: Path
) -> None:
    server.answer = lambda request: multipart([series[0].read_bytes()])
    with pytest.raises(FileNotFoundError):
        fetch(study(server), tmp_path / "missing")


def test_credentials_come_from_the_environment(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login file password word\n")

    def sent() -> str | None:
        refused(server, tmp_path)
        return server.requests[-1].headers.get("authorization")

    assert sent() == "Basic ZmlsZTp3b3Jk"  # file:word
    monkeypatch.setenv(client.USER, "jane")
    monkeypatch.setenv(client.PASSWORD, "secret")
    assert sent() == "Basic amFuZTpzZWNyZXQ="  # jane:secret
    monkeypatch.setenv(client.TOKEN, "abc ")
    assert sent() == "Bearer abc"
    monkeypatch.setenv(client.TOKEN, "a\nb")
    with pytest.raises(InputError, match=client.TOKEN) as error:
        fetch(study(server), tmp_path)
    assert "a\nb" not in str(error.value)


def test_credentials_in_the_open_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(client.TOKEN, "abc")
    for service in ("https://pacs.example.org", "http://127.0.0.1:9", "http://pacs.example.org"):
        with client.connected(service, "server"):
            pass
    (record,) = caplog.records
    assert record.getMessage().startswith("pacs.example.org: credentials are sent unencrypted")


def test_certificates_are_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    with client.connected("https://pacs.example.org", "server") as connection:
        assert connection._session.verify is True


def test_nothing_is_logged_of_what_is_asked(
    server: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(client.TOKEN, "verysecret")
    for address in (study(server), Address("http://127.0.0.1:1", STUDY, None, 1)):
        with caplog.at_level(logging.DEBUG), pytest.raises(InputError):
            fetch(address, tmp_path)
    assert STUDY not in caplog.text and "verysecret" not in caplog.text
    assert logging.getLogger("urllib3").level == logging.NOTSET
