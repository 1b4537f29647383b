"""Servers that are not what they say: too much, too slow, or another one."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.dicomweb import answers, client
from medsegdiff.dicomweb.address import Address
from medsegdiff.dicomweb.wado import fetch
from tests.dicomweb.fake_server import FakeServer, Request, multipart

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: multipart/related; "
    b'type="application/dicom"; boundary=line\r\n'
)
PART = b"\r\n--line\r\nContent-Type: application/dicom\r\n\r\n"


@contextmanager
def endless(send: Callable[[Callable[[bytes], None]], None]) -> Iterator[str]:
    """The address of a server that goes on sending until its client leaves."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(10)

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(2**16)
                try:
                    send(connection.sendall)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/root"
    listening.close()


def refused(url: str, folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        fetch(Address(url, "1.2.77", None, 1), folder)
    assert "1.2.77" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_without_end(
    chunked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDSEGDIFF_MAX_GIB", str(2.0**-6))

    def send(out: Callable[[bytes], None]) -> None:
        out(HEAD + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
        block = PART + bytes(128) + b"DICM"
        while True:
            out(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
            block = bytes(2**16)

    with endless(send) as url:
        error = refused(url, tmp_path)
    assert "sends more than 0.01562 GiB" in error.rule and "MEDSEGDIFF_MAX_GIB" in error.remedy


@pytest.mark.parametrize("chunked", [True, False])
def test_an_answer_byte_by_byte(
    chunked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "PATIENCE", 0.3)

    def send(out: Callable[[bytes], None]) -> None:
        out(HEAD + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
        while True:
            out(b"1\r\n-\r\n" if chunked else b"-")
            time.sleep(0.05)

    with endless(send) as url:
        error = refused(url, tmp_path)
    assert "bytes a second" in error.rule and "MEDSEGDIFF_FETCHING_RATE" in error.remedy


def test_a_head_byte_by_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(client, "ATTEMPTS", 1)

    def send(out: Callable[[bytes], None]) -> None:
        out(HEAD + b"X: ")
        while True:
            out(b"x")
            time.sleep(0.05)

    with endless(send) as url:
        assert "does not answer in time" in refused(url, tmp_path).rule


def test_a_compressed_answer(server: FakeServer, series: list[Path], tmp_path: Path) -> None:
    status, headers, body = multipart([file.read_bytes() for file in series])
    headers["Content-Encoding"] = "gzip"
    server.answer = lambda request: (status, headers, gzip.compress(body))
    (tmp_path / "got").mkdir()
    assert "compressed" in refused(server.url, tmp_path / "got").rule
    assert {request.headers["accept-encoding"] for request in server.requests} == {"identity"}


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "evil.example"])
def test_another_server_is_not_asked(host: str, server: FakeServer, tmp_path: Path) -> None:
    port = server.url.split(":")[2].split("/")[0]
    place = f"http://{host if ':' in host else f'{host}:{port}'}/root/studies/1.2.77"
    server.answer = lambda request: (302, {"Location": place}, b"")
    assert "another server" in refused(server.url, tmp_path).rule
    assert {request.headers["host"] for request in server.requests} == {server.host}


def test_another_place_on_the_same_server(
    server: FakeServer, series: list[Path], tmp_path: Path
) -> None:
    found = multipart([file.read_bytes() for file in series])

    def answer(request: Request) -> tuple[int, dict[str, str], bytes]:
        return found if request.path.startswith("/new") else (307, {"Location": "/new"}, b"")

    server.answer = answer
    (tmp_path / "got").mkdir()
    assert fetch(Address(server.url, "1.2.77", None, 1), tmp_path / "got") == len(series)
