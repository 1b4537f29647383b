"""The instances of a study or series from a DICOMweb server (WADO-RS) into a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medsegdiff.core.errors import InputError
from medsegdiff.dicomweb.address import Address
from medsegdiff.dicomweb.client import connected


def fetch(address: Address, folder: Path) -> int:
    """Writes all instances of a study or series into a folder, as the server stores them.

    Names of files follow from the instances' identifiers, so the same images give the same files.

    Args:
        address: Study or series on a server.
        folder: Existing folder for the files.

    Returns:
        Number of instances.

    Raises:
        InputError: the server cannot be reached, refuses, does not have the study or series, or
            sends no instance or something other than DICOM.
    """
    written = set()
    with connected(address.service, str(address)) as client:
        for instance in _instances(client, address):
            name = hashlib.sha256(str(instance.SOPInstanceUID).encode()).hexdigest()[:32]
            instance.save_as(folder / f"{name}.dcm", enforce_file_format=True)
            written.add(name)
    if not written:
        rule = "sent no instance"
        raise InputError(str(address), rule, "Check that the series is there and not empty")
    return len(written)


def _instances(client: Any, address: Address) -> Iterator[Any]:
    """The instances one by one, in the transfer syntax that they were stored in."""
    kept = (("application/dicom", "*"),)
    try:
        if address.series is None:
            return client.iter_study(address.study, media_types=kept)
        return client.iter_series(address.study, address.series, media_types=kept)
    except KeyError:  # an answer without content has no type
        return iter(())
