"""What an address is, and what is refused with which words."""

from __future__ import annotations

import pytest

from medsegdiff.core.errors import UsageError
from medsegdiff.dicomweb.address import Address, parse_address, parse_service

SERVICE = "https://pacs.example.org:8042/dicom-web"


@pytest.mark.parametrize(
    ("text", "series"),
    [
        (f"{SERVICE}/studies/1.2.3", None),
        (f"{SERVICE}/studies/1.2.3/", None),
        (f"{SERVICE}/studies/1.2.3/series/4.5.6", "4.5.6"),
    ],
)
def test_an_address_is_a_study_or_a_series(text: str, series: str | None) -> None:
    address = parse_address(text, 2)
    assert address == Address(SERVICE, "1.2.3", series, 2)
    for said in (str(address), repr(address)):
        assert "1.2.3" not in said and "4.5.6" not in said and "pacs.example.org:8042" in said
    assert parse_service(text) == parse_service(SERVICE + "/") == SERVICE


@pytest.mark.parametrize(
    "text",
    [
        SERVICE,
        f"{SERVICE}/studies",
        f"{SERVICE}/studies/doe",
        f"{SERVICE}/studies/1.2.3/series/4.5.6/instances/7.8",
        f"{SERVICE}/studies/1.2.3/metadata",
        f"{SERVICE}/studies/1.2.3?name=doe",
        "https:///studies/1.2.3",
        "https://[broken/studies/1.2.3",
    ],
)
def test_anything_else_is_wrong_usage_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match=r"Write https://") as refused:
        parse_address(text)
    for private in ("1.2.3", "doe"):
        assert private not in str(refused.value)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match=r"MEDSEGDIFF_DICOMWEB_TOKEN") as refused:
        parse_address("https://jane:secret@pacs.example.org/dicom-web/studies/1.2.3")
    assert "secret" not in str(refused.value) and "jane" not in str(refused.value)


def test_a_path_is_no_server() -> None:
    with pytest.raises(UsageError, match="--store-to"):
        parse_service("pacs/")
