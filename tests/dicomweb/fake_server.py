"""A server on loopback that answers as a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


@contextmanager
def serving() -> Iterator[FakeServer]:
    """A server that runs for as long as the block."""

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
    try:
        yield fake
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
