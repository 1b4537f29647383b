"""Objects to a server: what is sent, and which answers count as stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.dicomweb import client
from medsegdiff.dicomweb.stow import store
from tests.dicomweb.fake_server import Answer, FakeServer, Request, as_json


def item(uid: str, **more: int) -> dict[str, Any]:
    """One entry of an answer; ``more`` are tags with a number each."""
    numbers = {tag.strip("_"): {"vr": "US", "Value": [value]} for tag, value in more.items()}
    return {"00081155": {"vr": "UI", "Value": [uid]}, **numbers}


def answer(referenced: Any = (), failed: Any = (), status: int = 200) -> Answer:
    sequences = {"00081199": referenced, "00081198": failed}
    return as_json({t: {"vr": "SQ", "Value": list(v)} for t, v in sequences.items() if v}, status)


class Archive:
    """A server that keeps what it is sent and finds it again."""

    def __init__(self, server: FakeServer) -> None:
        self.kept: set[str] = set()
        server.answer = self

    def __call__(self, request: Request) -> Answer:
        if request.method == "GET":
            wanted = request.path.partition("SOPInstanceUID=")[2]
            found = [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in self.kept & {wanted}]
            return as_json(found)
        uid = sent_uid(request)
        self.kept.add(uid)
        return answer([item(uid)])


def sent_uid(request: Request) -> str:
    """Of the object in a request of STOW-RS, whose one part is a whole file."""
    _, _, part = request.body.partition(b"\r\n\r\n")
    file = pydicom.filebase.DicomBytesIO(part.rpartition(b"\r\n--")[0])
    return str(pydicom.dcmread(file).SOPInstanceUID)


def posts(server: FakeServer) -> list[Request]:
    return [request for request in server.requests if request.method == "POST"]


def test_what_the_server_has_is_not_sent_again(server: FakeServer, series: list[Path]) -> None:
    archive = Archive(server)
    assert store(series[:1], server.url) == f"{server.host} has stored 1 of 1 objects"
    told = store(series, server.url)
    assert told == f"{server.host} has stored 3 of 4 objects, the others were there"
    assert archive.kept == {str(pydicom.dcmread(file).SOPInstanceUID) for file in series}
    assert len(posts(server)) == 4
    assert {request.path for request in posts(server)} == {"/root/studies"}


def test_a_server_that_cannot_search_is_believed(server: FakeServer, series: list[Path]) -> None:
    server.answer = lambda request: (
        (501, {}, b"")
        if request.method == "GET"
        else answer([item(sent_uid(request), _00081196=0xB000)])
    )
    told = f"{server.host} has stored 1 of 1 objects, with the warning B000"
    assert store(series[:1], server.url) == told


def test_a_duplicate_is_there(server: FakeServer, series: list[Path]) -> None:
    server.answer = lambda request: (
        (501, {}, b"")
        if request.method == "GET"
        else answer(failed=[item(sent_uid(request), _00081197=0x0111)], status=409)
    )
    assert "has stored 1 of 1" in store(series[:1], server.url)


@pytest.mark.parametrize("status", [200, 202, 409])
@pytest.mark.parametrize(
    ("code", "says"),
    [(0xA700, "out of resources"), (0x0124, "not allowed"), (0xC999, "C999")],
)
def test_a_refusal_is_told_with_its_reason(
    status: int, code: int, says: str, server: FakeServer, series: list[Path]
) -> None:
    server.answer = lambda request: (
        as_json([])
        if request.method == "GET"
        else answer(failed=[item(sent_uid(request), _00081197=code)], status=status)
    )
    with pytest.raises(InputError, match=f"refuses to store.*{says}.*files are kept") as error:
        store(series[:1], server.url)
    assert error.value.subject == server.host


@pytest.mark.parametrize(
    "reply",
    [
        (200, {}, b""),
        (200, {"Content-Type": "text/html"}, b"<html>Log in</html>"),
        answer([item("1.2.3")]),
    ],
    ids=["empty", "page", "another object"],
)
@pytest.mark.parametrize("search", [(501, {}, b""), as_json([])], ids=["blind", "finds nothing"])
def test_what_is_not_confirmed_is_not_stored(
    reply: Answer, search: Answer, server: FakeServer, series: list[Path]
) -> None:
    server.answer = lambda request: search if request.method == "GET" else reply
    with pytest.raises(InputError, match="does not have the segmentation"):
        store(series[:1], server.url)


def test_a_server_that_says_so_but_does_not_keep_it(server: FakeServer, series: list[Path]) -> None:
    server.answer = lambda request: (
        as_json([]) if request.method == "GET" else answer([item(sent_uid(request))])
    )
    with pytest.raises(InputError, match=r"does not have the segmentation.*filters"):
        store(series[:1], server.url)


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ((401, {}, b""), "credentials.*401"),
        ((403, {}, b"{}"), "refuses access.*403"),
        ((413, {}, b""), "objects of this size"),
        ((400, {}, b"what?"), "HTTP 400"),
    ],
)
def test_http_errors_are_told(
    reply: Answer, says: str, server: FakeServer, series: list[Path]
) -> None:
    server.answer = lambda request: as_json([]) if request.method == "GET" else reply
    with pytest.raises(InputError, match=says):
        store(series[:1], server.url)


def test_a_second_attempt_sends_the_whole_object(
    server: FakeServer, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TIMEOUT", (2.0, 5.0))
    large = pydicom.dcmread(series[0])
    large.Rows = large.Columns = 800
    large.PixelData = bytes(2 * 800 * 800)  # more than a chunk of the library
    large.save_as(series[0])
    archive = Archive(server)

    def busy_at_first(request: Request) -> Answer:
        first = request.method == "POST" and len(posts(server)) == 1
        return (503, {}, b"") if first else archive(request)

    server.answer = busy_at_first
    store(series[:1], server.url)
    first, second = posts(server)
    assert len(first.body) == len(second.body) > 2 * 800 * 800
