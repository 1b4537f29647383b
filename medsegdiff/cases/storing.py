"""Storage of a segmented case's DICOM objects on a DICOMweb server."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from medsegdiff.cases.output_formats import OUTPUT_FORMATS, chosen_formats
from medsegdiff.core.errors import UsageError
from medsegdiff.core.types import OutputFormat
from medsegdiff.data.case_input import CaseInput
from medsegdiff.dicomweb.address import Address, parse_service
from medsegdiff.dicomweb.stow import store

ORIGIN = "origin"
"""Value that stands for the server that a case came from."""

logger = logging.getLogger(__name__)


def check_store(
    target: str | None, formats: Sequence[OutputFormat], inputs: Iterable[Path | Address]
) -> str | None:
    """The server to store on (``ORIGIN``: each case's own), or None if nothing is to be stored.

    Raises:
        UsageError: no DICOM objects will be written, no server is known, or its address is wrong.
    """
    if target is None:
        return None
    if not any(one.dicom_only for one in chosen_formats(formats)):
        dicom = " or ".join(one.name for one in OUTPUT_FORMATS.values() if one.dicom_only)
        rule = f"needs DICOM files, which are written only with --format {dicom}"
        raise UsageError("--store", rule, f"Add --format {dicom}")
    if target != ORIGIN:
        return parse_service(target)
    local = [one for one in inputs if not isinstance(one, Address)]
    if local:
        rule = f"{local[0]} does not come from a DICOMweb server, so its server is unknown"
        raise UsageError("--store", rule, "Name a server: --store-to https://<server>/<root>")
    return target


def store_case(case: CaseInput, folder: Path, target: str) -> None:
    """Store all DICOM objects of a case, and log the server's answer.

    Raises:
        InputError: the server cannot be reached, or refuses an object.
    """
    service = case.service if target == ORIGIN else target
    files = sorted(folder.glob(glob.escape(case.id) + "_*.dcm"))
    if service is None or not files:
        raise ValueError(f"{case.id} has {len(files)} objects to store on {service}")
    logger.info("%s: %s", case.id, store(files, service))
