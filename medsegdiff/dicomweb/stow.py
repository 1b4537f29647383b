"""Store DICOM objects on a DICOMweb server (STOW-RS)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom

from medsegdiff.core.errors import InputError
from medsegdiff.dicomweb.client import connected, host_of

_WHOLE = 2**40  # bytes: in one piece, since the library would send nothing at a second attempt
_DUPLICATE = 0x0111
_REASONS = {
    0x0110: "a failure in processing",
    0x0117: "it takes the object for invalid",
    0x0122: "it does not keep objects of this kind",
    0x0124: "not allowed",
    0xA700: "it is out of resources",
    0xA900: "the object does not fit its kind",
    0xC000: "it does not understand the object",
    0xC122: "it does not know the transfer syntax",
}
"""Failure Reason in an answer to STOW-RS (PS3.18, table I.2-2; PS3.7, annex C)."""


def store(files: Sequence[Path], service: str) -> str:
    """Stores DICOM files on a server, except those that it already has.

    Args:
        files: Paths of the DICOM files.
        service: DICOMweb root of the server.

    Returns:
        A sentence that says how many objects were stored.

    Raises:
        InputError: the server cannot be reached, refuses, or does not have an object in the end.
    """
    host, stored, warnings = host_of(service), 0, set[str]()
    with connected(service, host) as client:
        client.set_chunk_size(_WHOLE)
        for file in files:
            instance = pydicom.dcmread(file)
            if _finds(client, instance):
                continue
            warnings |= _store(client, instance, host)
            stored += 1
    message = f"{host} has stored {stored} of {len(files)} objects"
    message += "" if stored == len(files) else ", the others were there"
    return message + (f", with the warning {', '.join(sorted(warnings))}" if warnings else "")


def _store(client: Any, instance: Any, host: str) -> set[str]:
    """Stores one object; returns the codes of the warnings in the answer.

    Raises:
        InputError: the server refuses it, does not say that it has it, or does not find it.
    """
    answer = _post(client, instance)
    confirmed = [item.get("ReferencedSOPInstanceUID") for item in _items(answer, "Referenced")]
    for item in _items(answer, "Failed"):
        code = int(item.get("FailureReason") or 0)
        if code != _DUPLICATE:
            reason = f"{_REASONS.get(code, 'it gives no reason in words')} ({code:04X})"
            remedy = "Ask its administrator, and call again: the files are kept"
            raise InputError(host, f"refuses to store the segmentation: {reason}", remedy)
        confirmed.append(item.get("ReferencedSOPInstanceUID"))
    found = _finds(client, instance)
    if found is False or (found is None and instance.SOPInstanceUID not in confirmed):
        rule = "does not have the segmentation that was sent to it"
        remedy = "Check the address, ask its administrator for filters, and call again"
        raise InputError(host, rule, remedy)
    reasons = [item.get("WarningReason") for item in _items(answer, "Referenced")]
    return {f"{int(reason):04X}" for reason in reasons if reason}


def _post(client: Any, instance: Any) -> Any:
    """The answer to STOW-RS, a data set; the body of an HTTP error may hold it as well."""
    from requests import HTTPError

    try:
        return client.store_instances([instance])
    except HTTPError as error:
        try:
            answer = pydicom.Dataset.from_json(error.response.text)
        except Exception:  # no DICOM in it
            raise error from None
        if not _items(answer, "Failed"):
            raise
        return answer


def _items(answer: Any, kind: str) -> Any:
    return answer.get(f"{kind}SOPSequence") or []


def _finds(client: Any, instance: Any) -> bool | None:
    """Whether the server finds an object; None if it does not know the study, or cannot search."""
    from requests import RequestException

    uid = str(instance.SOPInstanceUID)
    place = str(instance.StudyInstanceUID), str(instance.SeriesInstanceUID)
    try:
        found = client.search_for_instances(*place, search_filters={"SOPInstanceUID": uid})
    except (RequestException, ValueError):
        return None
    return any(uid in one.get("00080018", {}).get("Value", []) for one in found)
