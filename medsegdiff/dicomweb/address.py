"""Addresses of studies, series and servers, as users write them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from medsegdiff.core.errors import UsageError
from medsegdiff.dicomweb.client import CREDENTIALS, host_of, library


@dataclass(frozen=True)
class Address:
    """A study, or one series of it, on a DICOMweb server.

    Attributes:
        service: DICOMweb root of the server.
        study: StudyInstanceUID.
        series: SeriesInstanceUID; None for the whole study.
        number: Position on the command line, from 1, which tells addresses apart in messages.
    """

    service: str
    study: str = field(repr=False)
    series: str | None = field(repr=False)
    number: int

    def __str__(self) -> str:
        return f"{host_of(self.service)} (input {self.number})"


def is_address(text: object) -> bool:
    """Whether an input is an address rather than a path.

    >>> is_address("https://pacs.example.org/dicom-web/studies/1.2.3"), is_address("study/")
    (True, False)
    """
    return str(text).lower().startswith(("http://", "https://"))


def parse_address(text: str, number: int = 1) -> Address:
    """The address ``<service>/studies/<study>`` with or without ``/series/<series>``, parsed.

    Args:
        text: Address as the user wrote it.
        number: Position on the command line, from 1.

    Raises:
        UsageError: the text is something else, or has credentials in it.
        InputError: dicomweb-client is not installed.
    """
    found = _parsed_uri(text)
    if found.study_instance_uid is None or found.sop_instance_uid or found.suffix:
        rule = "the address names neither a study nor a series"
        remedy = "Write https://<server>/<root>/studies/<UID>, with or without /series/<UID>"
        raise UsageError(host_of(text), rule, remedy)
    return Address(found.base_url, found.study_instance_uid, found.series_instance_uid, number)


def parse_service(text: str) -> str:
    """The DICOMweb root in an address, without its study and series.

    Raises:
        UsageError: the text is not an address, or has credentials in it.
        InputError: dicomweb-client is not installed.
    """
    if not is_address(text):
        rule = f"{text!r} is not the address of a DICOMweb server"
        raise UsageError("--store-to", rule, "Write https://<server>/<root>")
    return str(_parsed_uri(text).base_url)


def _parsed_uri(text: str) -> Any:
    """The address as dicomweb-client's ``URI``."""
    uri = library().URI
    try:
        parts = urlsplit(text)
        if parts.username is not None:
            rule = "the address holds credentials, which others can see"
            raise UsageError(host_of(text), rule, CREDENTIALS)
        if not parts.hostname:
            raise ValueError("no host")
        return uri.from_string(text.rstrip("/"))
    except ValueError:
        rule = "cannot be understood as that of a DICOMweb server, study or series"
        remedy = "Write https://<server>/<root>/studies/<UID>/series/<UID>"
        raise UsageError("the address", rule, remedy) from None
