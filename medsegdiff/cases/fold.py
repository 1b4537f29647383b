"""Segmentation of the cases of a data set that a fold holds out, or of its test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medsegdiff.bundle.bundle import load_bundle
from medsegdiff.cases.job import segmenter_of
from medsegdiff.data.manifest import Fold, load_manifest


def segment_fold(
    bundle: str | Path,
    data: str | Path,
    output: str | Path,
    fold: Fold = 0,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Segment the held-out cases of a fold, and write the files of each.

    It is for configurations of a bundle, which call it while they run, and for studies, which have
    written the bundle: whether that may run is not asked.

    Args:
        bundle: Folder or name of a bundle with the configuration ``configs/inference``.
        data: Description of the data set, its folder, or a known name.
        output: Folder for a folder of each case.
        fold: Number of the fold whose cases are segmented, ``test``, or ``all``.
        changes: Keys of ``configs/inference`` -> values that replace the bundle's.

    Returns:
        Failed case -> reason.

    Raises:
        InputError: the bundle or the data cannot be used, or there is no such fold.
        UsageError: the bundle is unknown, or does not have a key of ``changes``.
    """
    cases = load_manifest(data).held_out(fold)
    values = {"output_dir": str(output), **(changes or {})}
    return segmenter_of(load_bundle(bundle), values, running=True).segment_cases(cases)
