"""What a server may answer: not more than the limit, not too slowly, and not another server.

A server that is not what it says, or is broken, would otherwise fill the memory, or hold a command
for days with a byte a second.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

from requests import ReadTimeout
from requests.adapters import HTTPAdapter

from medsegdiff.core.errors import InputError
from medsegdiff.core.limits import FETCHING_RATE, SIZE

PATIENCE = 60.0
"""Seconds over which the rate of an answer is measured, again and again."""
HEAD_SECONDS = 300.0
"""Seconds for the head of an answer."""
_CHUNK = 2**16


def bounded(session: Any, subject: str) -> Any:
    """The session, which now refuses answers that are too large, too slow, or from elsewhere.

    Compressed answers, which could inflate without end, are neither asked for nor taken.

    Args:
        session: Session of ``requests``.
        subject: Name of the server or address in messages, without identifiers.
    """
    session.headers["Accept-Encoding"] = "identity"

    def check(response: Any, *_: Any, **__: Any) -> None:
        _check_redirect(response, subject)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            rule = "sends its answer compressed, which was not asked for"
            raise InputError(subject, rule, "Ask its administrator to turn that off")
        response.raw = _Bounded(response.raw, subject)

    session.hooks["response"].append(check)
    for scheme in ("http://", "https://"):
        session.mount(scheme, _PromptAdapter())
    return session


def _check_redirect(response: Any, subject: str) -> None:
    """Refuse to go to another server, or to an address without encryption."""
    if not response.is_redirect:
        return
    old = _server(response.url)
    new = _server(urljoin(response.url, response.headers["Location"]))
    if new not in (old, ("https", old[1], 443)):
        rule = "sends the request on to another server, or to one without encryption"
        raise InputError(subject, rule, "If that is the right one, give its address")


def _server(address: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(address)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


class _Bounded:
    """The body of an answer, counted while it is read.

    Args:
        raw: Body as ``urllib3`` has it.
        subject: Name of the server in messages.
    """

    def __init__(self, raw: Any, subject: str) -> None:
        self._raw, self._subject = raw, subject
        self._size, self._since, self._then = 0, time.monotonic(), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, amt: int = _CHUNK, decode_content: bool | None = None) -> Iterator[bytes]:
        """What has arrived, piece by piece, as ``urllib3.HTTPResponse.stream``.

        Raises:
            InputError: it is too much, or comes too slowly.
        """
        while chunk := self._raw.read1(min(amt, _CHUNK), decode_content=decode_content):
            self._count(len(chunk))
            yield chunk

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > SIZE.value * 2**30:
            raise SIZE.refusal(self._subject, f"sends more than {SIZE.value:.4g} GiB")
        now = time.monotonic()
        if now - self._since < PATIENCE:
            return
        rate = (self._size - self._then) / (now - self._since)
        if rate < FETCHING_RATE.value:
            rule = f"sends {rate:.3g} bytes a second, where the least is {FETCHING_RATE.value:.4g}"
            remedy = f"Try again later, or set {FETCHING_RATE.variable} to a smaller number"
            raise InputError(self._subject, rule, remedy)
        self._since, self._then = now, self._size


class _PromptAdapter(HTTPAdapter):
    """Waits for the head of an answer no longer than ``HEAD_SECONDS``, however it trickles in."""

    def send(self, request: Any, *args: Any, **settings: Any) -> Any:
        """The answer, its body unread.

        Raises:
            requests.ReadTimeout: its head does not come in time; the attempt is left to itself.
        """
        if request.method != "GET":  # a large object may take its time
            return super().send(request, *args, **settings)
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        send = super().send

        def ask() -> None:
            try:
                answers.put(send(request, *args, **settings))
            except Exception as error:  # raised again where it is waited for
                answers.put(error)

        threading.Thread(target=ask, daemon=True).start()
        try:
            answer = answers.get(timeout=HEAD_SECONDS)
        except queue.Empty:
            raise ReadTimeout from None
        if isinstance(answer, Exception):
            raise answer
        return answer
