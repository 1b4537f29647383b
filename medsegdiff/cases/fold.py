"""The cases of a data set that a fold holds out, or of its test, segmented as a bundle says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medsegdiff.bundle.bundle import load_bundle
from medsegdiff.cases.segmenter import CaseSegmenter
from medsegdiff.data.manifest import Fold, load_manifest


def segment_fold(
    bundle: str | Path,
    data: str | Path,
    output: str | Path,
    fold: Fold = 0,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Segment the cases that a fold holds out, and write the files of each.

    Args:
        bundle: its folder or name, whose ``configs/inference`` says how.
        data: description of the data set, its folder, or a known name.
        output: gets a folder for each case.
        fold: whose cases: a number, ``test``, or ``all``.
        changes: values of ``configs/inference`` to replace.

    Returns:
        Failed case -> reason.

    Raises:
        InputError: the bundle or the data cannot be used, or there is no such fold.
        UsageError: an unknown bundle, or a key of ``changes`` that the bundle does not have.
    """
    cases = load_manifest(data).held_out(fold)
    parser = load_bundle(bundle).parser("inference", {"output_dir": str(output), **(changes or {})})
    segmenter: CaseSegmenter = parser.get_parsed_content("segmenter")
    return segmenter.segment_cases(cases)
