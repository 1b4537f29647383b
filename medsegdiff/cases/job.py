"""The job of ``medsegdiff segment``: from a user's images to the files of each case.

The libraries of the network are imported only after the inputs and options have been checked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medsegdiff.bundle.bundle import Bundle, device_change, load_bundle, making_objects
from medsegdiff.cases.inputs import found_cases, parse_inputs
from medsegdiff.cases.one_by_one import one_by_one
from medsegdiff.cases.part import Part
from medsegdiff.cases.ray_engine import RayEngine
from medsegdiff.cases.storing import check_store
from medsegdiff.cases.way import ALONE, Way
from medsegdiff.core.errors import InputError, UsageError
from medsegdiff.core.types import EngineName
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
    part: Part | None = None,
    engine: EngineName = "local",
    workers: int | None = None,
    address: str | None = None,
    tell: Callable[[str, InputError | None], None] | None = None,
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
        part: Part of the cases that this process does, while others do the rest in the same folder;
            None: all.
        engine: ``local``: in this process, one after the other; ``ray``: on a Ray cluster.
        workers: Number of workers of ``ray``; None: one for each core, or GPU if ``device`` is one.
        address: Address of the Ray cluster, or ``auto``; None: one of this machine alone.
        tell: Function of each input or case, as it ends, and its error.
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
    found, folder = load_bundle(bundle), Path(output)
    changes = {**settings, "output_dir": str(folder), **device_change(device)}
    way = Way(part, tell=tell or ALONE.tell)
    if engine == "ray":
        way = replace(way, engine=RayEngine(found, changes, workers, address))
    elif workers is not None or address is not None:
        rule = "are for a Ray cluster"
        raise UsageError("--workers and --address", rule, "Add --engine ray, or leave them out")
    if fold is not None:
        return _segment_held_out(listed, found, changes, store, key, fold, way)
    parsed = parse_inputs(listed)
    found.config("inference")  # fails early if the bundle is not made for segmenting
    if all(isinstance(one, Path) and not os.path.exists(one) for one in parsed):
        with found_cases(parsed, folder) as (cases, failures):
            missing = one_by_one(
                cases, failures, folder, lambda _: None, "segment", tell=way.tell, shared=bool(part)
            )
        return {name: str(error) for name, error in missing.items()}
    parser = found.parser("inference", changes)
    with making_objects(found.config("inference")):
        check_store(store, parser.get_parsed_content("formats"), parsed)  # before loading a network
    segmenter = _segmenter(parser, found)
    return segmenter.segment_inputs(listed, store, Path(key) if key else None, way)


def _segment_held_out(
    inputs: Sequence[str | Path],
    bundle: Bundle,
    changes: Mapping[str, Any],
    store: str | None,
    key: str | Path | None,
    fold: Fold,
    way: Way,
) -> dict[str, str]:
    """Segment the cases of a fold of one data set, of its test, or all, by their names there."""
    if store is not None or len(inputs) != 1:
        rule = "takes one data set, and stores nothing on a server"
        raise UsageError("--fold", rule, "Give one DATA, and leave out --store")
    cases = load_manifest(inputs[0]).held_out(fold)
    segmenter = segmenter_of(bundle, changes)
    return segmenter.segment_cases(cases, Path(key) if key else None, way)


def segmenter_of(
    bundle: Bundle, changes: Mapping[str, Any], *, running: bool = False
) -> CaseSegmenter:
    """The segmenter of a bundle, whose network is loaded.

    Args:
        bundle: Bundle with the configuration ``configs/inference``.
        changes: Keys of the configuration -> values that replace the bundle's.
        running: Whether a program runs the bundle already: whether it may is not asked again.

    Raises:
        InputError: the bundle cannot be used, or may not be run.
        UsageError: a key is unknown, or a value out of its range.
    """
    return _segmenter(bundle.parser("inference", changes, running=running), bundle)


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
