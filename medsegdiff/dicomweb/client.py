"""A client of a DICOMweb server, with errors that say what the user can do.

Errors name the server alone, since an address holds the identifiers of a study. Credentials come
from the environment or from ``~/.netrc``, never from an address.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from medsegdiff.core.errors import InputError, needs_extra
from medsegdiff.core.quiet import silenced

TOKEN = "MEDSEGDIFF_DICOMWEB_TOKEN"
"""Name of the environment variable for a bearer token."""
USER, PASSWORD = "MEDSEGDIFF_DICOMWEB_USER", "MEDSEGDIFF_DICOMWEB_PASSWORD"
"""Names of the environment variables for HTTP basic authentication."""
TIMEOUT = (10.0, 120.0)
"""Seconds to wait for a connection, and for each further byte."""
ATTEMPTS = 3
"""Largest number of attempts of a request that gets no answer, or the answer to try later."""
FIRST_WAIT_MS = 500
"""Half of the first pause between attempts, in milliseconds; each further pause doubles."""
CREDENTIALS = f"Set {TOKEN}, or {USER} and {PASSWORD}, or write them into ~/.netrc"
"""Remedy where a server asks for credentials."""
_EPILOGUE = 1024  # bytes that may follow the end of a multipart answer
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

logger = logging.getLogger(__name__)


def host_of(service: str) -> str:
    """The server in an address, with its port.

    >>> host_of("https://pacs.example.org:8042/dicom-web")
    'pacs.example.org:8042'
    """
    return urlsplit(service).netloc.rpartition("@")[2]


def library() -> Any:
    """The package dicomweb_client.

    Raises:
        InputError: it is not installed.
    """
    with needs_extra("DICOMweb", "dicomweb-client", "pacs"):
        import dicomweb_client
    return dicomweb_client


@contextmanager
def connected(service: str, subject: str) -> Iterator[Any]:
    """A context with a client of a server, in which the server's errors become an ``InputError``.

    The causes are dropped: they name addresses, and some of them credentials.

    Args:
        service: DICOMweb root of the server.
        subject: Name of the server or address in messages, without identifiers.

    Raises:
        InputError: the server cannot be reached, refuses, answers something unexpected, or is
            beyond a limit of :mod:`medsegdiff.dicomweb.answers`.
    """
    client_class = library().DICOMwebClient
    from requests import RequestException
    from retrying import RetryError

    from medsegdiff.dicomweb.answers import bounded

    with _session(service) as session, silenced():
        bounded(session, subject)
        session.hooks["response"].append(_whole_or_failing)
        client = client_class(service, session=session, timeout=TIMEOUT)
        client.set_http_retry_params(
            max_attempts=ATTEMPTS, wait_exponential_multiplier=FIRST_WAIT_MS
        )
        try:
            yield client
        except InputError:
            raise
        except RequestException as error:
            raise _input_error(error, subject) from None
        except RetryError as error:
            status = error.last_attempt.value.status_code
            raise InputError(subject, f"is busy (HTTP {status})", "Try again later") from None
        except OSError:  # of our own disk
            raise
        except Exception:  # whatever a parser raises on what it was not made for
            rule = "answered something other than DICOM"
            raise InputError(subject, rule, "Check the address and its root") from None


def _session(service: str) -> Any:
    """A session with the credentials of the environment; without them, requests reads .netrc.

    Certificates are verified; ``REQUESTS_CA_BUNDLE`` names a file of an institution's own.
    """
    from dicomweb_client import session_utils

    token, user = os.environ.get(TOKEN, "").strip(), os.environ.get(USER, "")
    place = urlsplit(service)
    if (token or user) and place.scheme == "http" and place.hostname not in _LOOPBACK:
        logger.warning("%s: credentials are sent unencrypted; use https", host_of(service))
    if token:
        if not (token.isascii() and token.isprintable()):
            raise InputError(TOKEN, "holds characters that no token has", "Set it again")
        return session_utils.create_session_from_auth(_bearer(token))
    if user:
        password = os.environ.get(PASSWORD, "")
        return session_utils.create_session_from_user_pass(user.encode(), password.encode())
    return session_utils.create_session()


def _bearer(token: str) -> Any:
    """Adds the token to a request (as a header of the session, .netrc would replace it)."""

    def authorise(request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authorise


def _whole_or_failing(response: Any, **_: Any) -> None:
    """Let a multipart answer without its closing delimiter (RFC 2046, 5.1.1) fail at its end.

    The library takes what came for all there is, though slices may be missing.
    """
    from requests.exceptions import ChunkedEncodingError

    header = Message()
    header["Content-Type"] = response.headers.get("Content-Type", "")
    boundary = header.get_boundary()
    if boundary is None:
        return
    closing, chunks = f"--{boundary}--".encode("utf-8", "replace"), response.iter_content

    def checked(*sizes: Any, **options: Any) -> Iterator[bytes]:
        end = b""
        for chunk in chunks(*sizes, **options):
            end = (end + chunk)[-len(closing) - _EPILOGUE :]
            yield chunk
        if closing not in end:
            raise ChunkedEncodingError("no closing delimiter")

    response.iter_content = checked


def _input_error(error: Any, subject: str) -> InputError:
    """The ``InputError`` for an error of requests, without that error's own message."""
    import requests

    if isinstance(error, requests.HTTPError):
        return _status_error(error.response.status_code, subject)
    for kind, rule, remedy in (
        (requests.Timeout, "does not answer in time", "Try again later"),
        (
            requests.exceptions.SSLError,
            "its certificate cannot be verified",
            "Let REQUESTS_CA_BUNDLE name the file of your institution's certificates",
        ),
        (
            requests.ConnectionError,
            "cannot be reached, or breaks off",
            "Check the address, the network and the server",
        ),
        (requests.exceptions.ChunkedEncodingError, "breaks off while it sends", "Try again"),
        (ValueError, "answered something other than DICOM", "Check the address and its root"),
    ):
        if isinstance(error, kind):
            return InputError(subject, rule, remedy)
    rule = f"the request failed ({type(error).__name__})"
    return InputError(subject, rule, "Check the address and the server")


def _status_error(status: int, subject: str) -> InputError:
    """The ``InputError`` for the status code of an HTTP answer."""
    rule, remedy = {
        401: ("asks for credentials, or refuses those given", CREDENTIALS),
        403: ("refuses access to it", CREDENTIALS),
        404: ("knows no such study, series or service", "Check the address and its root"),
        413: ("refuses objects of this size", "Ask its administrator to raise the limit"),
    }.get(status, ("did not carry out the request", "Ask its administrator"))
    return InputError(subject, f"{rule} (HTTP {status})", remedy)
