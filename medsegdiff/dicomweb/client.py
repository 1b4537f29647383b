"""A client of a DICOMweb server, whose errors tell users what to do.

They name the server alone, since an address holds the identifiers of a study. Credentials come from
the environment or from ``~/.netrc``, never from an address.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from medsegdiff.core.errors import InputError, needs_extra
from medsegdiff.core.quiet import silenced

TOKEN = "MEDSEGDIFF_DICOMWEB_TOKEN"
"""Environment variable: a bearer token."""
USER, PASSWORD = "MEDSEGDIFF_DICOMWEB_USER", "MEDSEGDIFF_DICOMWEB_PASSWORD"
"""Environment variables: for HTTP basic authentication."""
TIMEOUT = (10.0, 120.0)
"""Seconds to wait for a connection, and for each further byte."""
ATTEMPTS = 3
"""Of a request that gets no answer, or one that asks to come later."""
FIRST_WAIT_MS = 500
"""The first pause between attempts is twice as long, each further one twice the one before."""
CREDENTIALS = f"Set {TOKEN}, or {USER} and {PASSWORD}, or write them into ~/.netrc"
"""What to do where a server asks who we are."""
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
    """A client of a server; whatever goes wrong with the server within becomes an ``InputError``.

    The causes are dropped: they name addresses, and some of them credentials.
    """
    client_class = library().DICOMwebClient
    from requests import RequestException
    from retrying import RetryError

    with _session(service) as session, silenced():
        client = client_class(service, session=session, timeout=TIMEOUT)
        client.set_http_retry_params(
            max_attempts=ATTEMPTS, wait_exponential_multiplier=FIRST_WAIT_MS
        )
        try:
            yield client
        except InputError:
            raise
        except RequestException as error:
            raise _refused(error, subject) from None
        except RetryError as error:
            status = error.last_attempt.value.status_code
            raise InputError(subject, f"is busy (HTTP {status})", "Try again later") from None
        except OSError:  # of our own disk
            raise
        except Exception:  # whatever a parser raises on what it was not made for
            rule = "answered something other than DICOM"
            raise InputError(subject, rule, "Check the address and its root") from None


def _session(service: str) -> Any:
    """A session with the credentials of the environment; without, requests looks at .netrc.

    Certificates are verified; ``REQUESTS_CA_BUNDLE`` names those of an institution's own.
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


def _refused(error: Any, subject: str) -> InputError:
    """What an error of requests means, without what it says."""
    import requests

    if isinstance(error, requests.HTTPError):
        return _told(error.response.status_code, subject)
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


def _told(status: int, subject: str) -> InputError:
    """What the code of an HTTP answer means."""
    rule, remedy = {
        401: ("asks for credentials, or refuses those given", CREDENTIALS),
        403: ("refuses access to it", CREDENTIALS),
        404: ("knows no such study, series or service", "Check the address and its root"),
        413: ("takes nothing so large", "Ask who runs it to raise the limit"),
    }.get(status, ("does not do what was asked", "Ask who runs it"))
    return InputError(subject, f"{rule} (HTTP {status})", remedy)
