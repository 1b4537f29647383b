"""From a user's images to the files of each case: what ``medsegdiff segment`` does.

Nothing here loads a network's libraries before it is known that there is something to segment.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff.bundle.bundle import Bundle, device_change, load_bundle
from medsegdiff.cases.inputs import found_cases, parse_inputs
from medsegdiff.cases.one_by_one import one_by_one
from medsegdiff.cases.storing import check_store
from medsegdiff.core.errors import surfacing_input_errors


def segment(
    inputs: str | Path | Sequence[str | Path],
    bundle: str | Path | Bundle,
    output: str | Path,
    *,
    device: str = "auto",
    store: str | None = None,
    key: str | Path | None = None,
    **settings: Any,
) -> dict[str, str]:
    """Segment images with a bundle's model and write the files of each case.

    Args:
        inputs: NIfTI or DICOM files, folders or zips of such, or addresses of DICOMweb studies;
            one or several.
        bundle: name, path or bundle, whose ``configs/inference`` says how.
        output: gets a folder for each case.
        device: ``auto``, or a torch device.
        store: address of the DICOMweb server to store DICOM objects on; ``origin``: each case's.
        key: file that shall say which image each case is; None: no file says it.
        settings: keys of the configuration -> values, such as ``members=8``. Those that are left
            out are as the bundle recommends.

    Returns:
        Failed input or case -> reason.

    Raises:
        InputError: the bundle cannot be used, or the key not be written.
        UsageError: the bundle is not there, the device cannot be used, a setting is unknown or out
            of its range, or nothing could be stored.
    """
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    parsed, found, folder = parse_inputs(listed), load_bundle(bundle), Path(output)
    found.config("inference")  # says at once if the bundle is not made for segmenting
    if all(isinstance(one, Path) and not os.path.exists(one) for one in parsed):
        with found_cases(parsed, folder) as (cases, failures):
            missing = one_by_one(cases, failures, folder, lambda _: None, "segment")
        return {name: str(error) for name, error in missing.items()}
    changes = {**settings, "output_dir": str(folder), **device_change(device)}
    parser = found.parser("inference", changes)
    with surfacing_input_errors():
        check_store(store, parser.get_parsed_content("formats"), parsed)  # before the network
        segmenter = parser.get_parsed_content("segmenter")
    failed: dict[str, str] = segmenter.segment_inputs(listed, store, key and Path(key))
    return failed
