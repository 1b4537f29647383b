"""The job of ``medsegdiff segment``: from a user's images to the files of each case.

The libraries of the network are imported only after the inputs and options have been checked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsegdiff.bundle.bundle import Bundle, device_change, load_bundle, making_objects
from medsegdiff.cases.inputs import found_cases, parse_inputs
from medsegdiff.cases.one_by_one import one_by_one
from medsegdiff.cases.storing import check_store
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.data.manifest import Fold, load_manifest

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

    from medsegdiff.cases.segmenter import CaseSegmenter


def segment(
    inputs: str | Path | Sequence[str | Path],
    bundle: str | Path | Bundle,
    output: str | Path,
    *,
    device: str = "auto",
    store: str | None = None,
    key: str | Path | None = None,
    fold: Fold | None = None,
    **settings: Any,
) -> dict[str, str]:
    """Segment images with a bundle's model and write the files of each case.

    Args:
        inputs: NIfTI or DICOM files, folders or zips of such, or addresses of DICOMweb studies;
            one or several.
        bundle: Name, path or bundle with the configuration ``configs/inference``.
        output: Folder for a folder of each case.
        device: Name of a torch device, or ``auto``.
        store: Address of the DICOMweb server to store DICOM objects on; ``origin`` for the server
            that each case came from.
        key: Path of a table to write that says which image each case is; None for no table.
        fold: Number of a fold, ``test`` or ``all``: ``inputs`` is then one data set, whose cases
            that are held out, of its test, or all are segmented, by their names there. None: the
            inputs are images.
        settings: Keys of the configuration -> values, such as ``members=8``. The bundle's own
            values are used for all others.

    Returns:
        Failed input or case -> reason.

    Raises:
        InputError: the bundle cannot be used, or the key cannot be written.
        UsageError: the bundle does not exist, the device cannot be used, a setting is unknown or
            out of its range, or there would be nothing to store.
    """
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    if fold is not None:
        return _segment_held_out(listed, bundle, output, device, store, key, fold, settings)
    parsed, found, folder = parse_inputs(listed), load_bundle(bundle), Path(output)
    found.config("inference")  # fails early if the bundle is not made for segmenting
    if all(isinstance(one, Path) and not os.path.exists(one) for one in parsed):
        with found_cases(parsed, folder) as (cases, failures):
            missing = one_by_one(cases, failures, folder, lambda _: None, "segment")
        return {name: str(error) for name, error in missing.items()}
    changes = {**settings, "output_dir": str(folder), **device_change(device)}
    parser = found.parser("inference", changes)
    with making_objects(found.config("inference")):
        check_store(store, parser.get_parsed_content("formats"), parsed)  # before loading a network
    return _segmenter(parser, found).segment_inputs(listed, store, Path(key) if key else None)


def _segment_held_out(
    inputs: Sequence[str | Path],
    bundle: str | Path | Bundle,
    output: str | Path,
    device: str,
    store: str | None,
    key: str | Path | None,
    fold: Fold,
    settings: Mapping[str, Any],
) -> dict[str, str]:
    """Segment the cases of a fold of one data set, of its test, or all, by their names there."""
    if store is not None or len(inputs) != 1:
        rule = "takes one data set, and stores nothing on a server"
        raise UsageError("--fold", rule, "Give one DATA, and leave out --store")
    cases, found = load_manifest(inputs[0]).held_out(fold), load_bundle(bundle)
    changes = {**settings, "output_dir": str(output), **device_change(device)}
    parser = found.parser("inference", changes)
    return _segmenter(parser, found).segment_cases(cases, Path(key) if key else None)


def _segmenter(parser: ConfigParser, bundle: Bundle) -> CaseSegmenter:
    """The bundle's segmenter, whose network is loaded."""
    from medsegdiff.cases.segmenter import CaseSegmenter

    path = bundle.config("inference")
    with making_objects(path):
        made = parser.get_parsed_content("segmenter")
    if not isinstance(made, CaseSegmenter):
        rule = f"its 'segmenter' is no CaseSegmenter but {type(made).__name__}"
        raise InputError(path, rule, "Compare it with a bundle that ships")
    return made
