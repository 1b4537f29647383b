"""Search for the setting at which members agree with each other as often as raters do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.core.atomic_files import write_json
from medsegdiff.core.errors import UsageError
from medsegdiff.data.case_input import CaseInput
from medsegdiff.data.manifest import Case, Manifest, load_manifest
from medsegdiff.data.predictions import foreground, known_voxels, read_reference
from medsegdiff.evaluation.case_figures import judged_sets
from medsegdiff.metrics.calibration_error import Reliability, region_of_interest, reliability
from medsegdiff.metrics.means import mean_defined
from medsegdiff.metrics.sample_sets import sample_set_metrics
from medsegdiff.segmentation.segmented_case import segment_case

logger = logging.getLogger(__name__)

FIGURES = ("ged2", "hm_iou", "diversity", "rater_diversity")


def compare_settings(
    bundle: Bundle,
    data: str | Path,
    output: str | Path,
    setting: str,
    values: Sequence[float],
    *,
    fold: int = 0,
    inference: Mapping[str, Any] | None = None,
    progress: Callable[[Sequence[Case]], Iterable[Case]] = iter,
) -> dict[str, Any]:
    """Sample held-out cases at several values of a setting, and compare the members' agreement.

    A voxel that 80 % of the members mark should be marked by 80 % of the raters (with one rater,
    in 80 % of the cases). ``votes_ece`` is the calibration error of these votes in the region of
    interest, over all cases together. ``best`` is the value with the least error, for the bundle's
    ``inference.yaml``. The result also gives GED^2, HM-IoU and the diversity of members and raters
    as means over cases (over planes for a data set of planes).

    Args:
        bundle: Bundle with weights.
        data: Description of the data set, or a known name.
        output: Path of the JSON file to write.
        setting: Key of ``configs/inference``, such as ``noise_scale`` or ``diversity_weight``.
        values: Values of the setting, at least one.
        fold: Number of the fold whose held-out cases are used.
        inference: Keys of ``configs/inference`` -> values that replace the bundle's.
        progress: Wrapper of a sequence that shows how many are done.

    Returns:
        Content of the written file.

    Raises:
        UsageError: there is no value, a value is not allowed, or the setting is unknown.
        InputError: a case cannot be read.
    """
    if not values:
        raise UsageError("values", "must be one at least", "Give for instance [0.6, 0.8, 1.0]")
    manifest = load_manifest(data)
    cases = manifest.split(fold)[1]
    rows = []
    for value in values:
        parts = _parts(bundle, {"calibration": "off", **(inference or {}), setting: value})
        judged = [judge(case, manifest, parts) for case in progress(cases)]
        rows.append({setting: value, **summed(judged)})
        logger.info("%s", ", ".join(f"{name} {figure:.4g}" for name, figure in rows[-1].items()))
    best = min(rows, key=lambda row: row["votes_ece"])[setting]
    content = {"data": manifest.name, "fold": fold, "cases": len(cases), "rows": rows, "best": best}
    write_json(Path(output), content)
    return content


def _parts(bundle: Bundle, changes: Mapping[str, Any]) -> list[Any]:
    """Network, preprocessing and inferer of the bundle with some values changed."""
    parser = bundle.parser("inference", changes, running=True)
    try:
        return [parser.get_parsed_content(p) for p in ("network", "preprocessing", "inferer")]
    except RuntimeError as error:  # MONAI's error, caused by a class's check of its arguments
        if not isinstance(error.__cause__, ValueError):
            raise
        rule = str(error.__cause__).rstrip(".")
        raise UsageError("values", rule, "Choose others") from error


def judge(
    case: Case, manifest: Manifest, parts: Sequence[Any]
) -> tuple[Reliability, list[dict[str, list[float]]]]:
    """Bins of the members' votes over all foreground classes, and the figures of each sample set.

    Args:
        case: Case with a reference.
        manifest: Data set of the case.
        parts: Network, preprocessing and inferer.
    """
    network, preprocessing, inferer = parts
    annotations, _ = read_reference(case, manifest)
    found = segment_case(
        CaseInput(case.id, case.images, spacing=case.spacing), network, preprocessing, inferer
    )
    members = found.members.reshape(len(found.members), *annotations.shape[1:])
    classes, bins = foreground(manifest), []
    known = known_voxels(annotations)
    for value in classes:
        marked = annotations == value
        region = region_of_interest(marked.any(axis=0))
        region = region if known is None else region & known
        votes = np.mean(members == value, axis=0)
        bins.append(reliability(votes, marked.mean(axis=0), region))
    sets = judged_sets(members, annotations, manifest)
    return reduce(add, bins), [sample_set_metrics(s, r, list(classes)) for s, r in sets]


def summed(
    judged: Sequence[tuple[Reliability, list[dict[str, list[float]]]]],
) -> dict[str, float]:
    """``votes_ece`` over all voxels together, and the mean of each figure over all sample sets."""
    sets = [figures for _, of_case in judged for figures in of_case]
    return {
        "votes_ece": reduce(add, (bins for bins, _ in judged)).ece,
        **{name: mean_defined([figures[name][0] for figures in sets]) for name in FIGURES},
    }
