"""A server on loopback that answers as a test wants, and a client that does not wait."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.dicomweb import client
from medsegdiff.phantoms.cohort import write_dicom_series

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""


@dataclass
class Request:
    """What a client asked for."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeServer:
    """Answers each request with what ``answer`` makes of it, and remembers it."""

    url: str
    answer: Callable[[Request], Answer] = lambda request: (404, {}, b"")
    requests: list[Request] = field(default_factory=list)

    @property
    def host(self) -> str:
        return self.url.split("/")[2]


def multipart(parts: Sequence[bytes]) -> Answer:
    """As WADO-RS sends instances."""
    head = b"\r\n--line\r\nContent-Type: application/dicom\r\n\r\n"
    body = b"".join(head + part for part in parts) + b"\r\n--line--"
    kind = 'multipart/related; type="application/dicom"; boundary=line'
    return 200, {"Content-Type": kind}, body


def as_json(content: object, status: int = 200) -> Answer:
    """As STOW-RS and QIDO-RS answer."""
    return status, {"Content-Type": "application/dicom+json"}, json.dumps(content).encode()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials but the test's, no long waits."""
    for name in (client.TOKEN, client.USER, client.PASSWORD):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(client, "FIRST_WAIT_MS", 1)
    monkeypatch.setattr(client, "TIMEOUT", (2.0, 0.5))


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """It runs for as long as the test."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, self.rfile.read(length))
            fake.requests.append(request)
            status, more, body = fake.answer(request)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | more).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *of: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    fake = FakeServer(f"http://127.0.0.1:{http.server_port}/root")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield fake
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    """The four files of a series."""
    volume = np.arange(6 * 5 * 4, dtype=np.uint16).reshape(6, 5, 4)
    return write_dicom_series(volume, np.eye(4), tmp_path / "series", patient="DOE^JANE")
