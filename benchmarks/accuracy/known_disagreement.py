"""Does the set disagree as its raters do, where their true distribution is known?

The bundle's network is trained on a generated cohort with four raters a case, whose distribution
is known, and samples held-out cases of it; their marginals are compared with the true ones, and
their GED^2 with the least that so many masks can reach: that between two sets of true annotations.

python -m benchmarks.accuracy.known_disagreement --minutes 8 --output benchmarks/results
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.contenders import ours
from benchmarks.harness.data import load_study
from benchmarks.harness.training import Plan, train
from medsegdiff.bundle import Bundle, load_bundle
from medsegdiff.core import write_json
from medsegdiff.data import Case, CaseInput, load_manifest
from medsegdiff.metrics import region_of_interest, sample_set_metrics
from medsegdiff.phantoms import Raters, draw_annotation, make_anatomy, write_cohort
from medsegdiff.segmentation import segment_case

RATERS = Raters(shift_mm=1.5, field_mm=1.0, smoothness=4.0, omission=0.25)
"""Raters who draw larger or smaller, wander along the outline, or see nothing at all."""
SIZE, SEED, MEMBERS = 48, 0, 16
SPACING_MM = 1.2
MARGINAL_MEMBERS = 256
"""Enough that the sampling error of a marginal, at most 0.03 a pixel, is below what is asked."""

KEYS = ["image", "label"]
"""What the transforms of the training are of."""


def chain(keys: Sequence[str]) -> list[dict[str, Any]]:
    """From files to planes of one spacing and of 64 pixels, whatever their own."""
    modes = {"image": "bilinear", "label": "nearest"}
    return [
        {"_target_": "medsegdiff.data.LoadCased", "spatial_dims": 2, "raters": 4},
        {
            "_target_": "Spacingd",
            "keys": keys,
            "pixdim": [SPACING_MM, SPACING_MM],
            "mode": [modes[key] for key in keys],
        },
        {"_target_": "NormalizeIntensityd", "keys": "image"},
        {"_target_": "ResizeWithPadOrCropd", "keys": keys, "spatial_size": [64, 64]},
    ]


def compare(arguments: argparse.Namespace, folder: Path) -> tuple[int, list[dict[str, float]]]:
    """Steps of the training, and the figures of each held-out case.

    Args:
        arguments: Options of the command.
        folder: Empty folder for the cohort.
    """
    description = write_cohort(
        folder,
        cases=arguments.cases,
        spatial_dims=2,
        classes=1,
        raters=4,
        seed=SEED,
        size=SIZE,
        disagreement=RATERS,
        stacked=True,
    )
    bundle = load_bundle(arguments.bundle)
    select = {"_target_": "SelectItemsd", "keys": KEYS}
    changes = {
        "deterministic_transforms": [*chain(KEYS), select],
        "random_transforms#2#scale_range": [0.0, 0.0],  # how far raters differ is a length
        "batch_size": 16,
    }
    study = load_study(str(description), bundle, 0, changes=changes)
    contender = ours.medsegdiff(study, bundle, {})
    plan = Plan(60.0 * arguments.minutes, 0.001, SEED, torch.device("cpu"))
    trained = train(contender, study, plan)
    cases = load_manifest(description).split(0)[1][: arguments.judged]
    return trained.steps, [_figures(case, trained.networks[0], bundle, folder) for case in cases]


def _figures(
    case: Case, network: torch.nn.Module, bundle: Bundle, folder: Path
) -> dict[str, float]:
    truth = _plane(folder / "truth" / f"{case.id}_probability_structure-1.nii.gz")
    region = region_of_interest(truth > 0.01)
    gap = _members(case, network, bundle, MARGINAL_MEMBERS).mean(axis=0) - truth
    drawn, (one, other) = _members(case, network, bundle, MEMBERS), _true_sets(case)
    reached, floor = sample_set_metrics(drawn, one, [1]), sample_set_metrics(other, one, [1])
    return {
        "marginal_error": float(np.abs(gap[region]).mean()),
        "marginal_bias": float(gap[region].mean()),
        "ged2": reached["ged2"][0],
        "ged2_floor": floor["ged2"][0],
        "diversity": reached["diversity"][0],
        "rater_diversity": reached["rater_diversity"][0],
    }


def _members(
    case: Case, network: torch.nn.Module, bundle: Bundle, members: int
) -> NDArray[np.uint8]:
    """(N, X, Y) masks on the case's own grid."""
    changes = {
        "members": members,
        "preprocessing#transforms": chain(["image"]),
        "noise_scale": 1.0,  # what the bundle has is fitted to its own data, as are its mirrors
        "oversampling": 1,
        "diversity_weight": 1.0,
        "inferer#mirror_axes": [],
    }
    parser = bundle.parser("inference", changes)
    segmented = segment_case(
        CaseInput(case.id, case.images),
        network,
        parser.get_parsed_content("preprocessing"),
        parser.get_parsed_content("inferer"),
    )
    return segmented.members.reshape(members, *segmented.members.shape[1:3])


def _true_sets(case: Case) -> list[NDArray[np.uint8]]:
    """Two sets of annotations (N, X, Y) that the model has not seen, of the true distribution."""
    number = int(case.id.rpartition("_")[2])
    levels = make_anatomy(np.random.default_rng([SEED, number]), 2, 1, SIZE, "adjacent")[1]
    rng = np.random.default_rng([SEED, number, 1])
    return [np.stack([draw_annotation(levels, RATERS, rng) for _ in range(MEMBERS)]) for _ in "ab"]


def _plane(file: Path) -> NDArray[np.float64]:
    values = np.asarray(nib.load(file).dataobj, dtype=np.float64)
    return values.reshape(values.shape[:2])


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """The command; writes ``known_disagreement.json`` and returns what is in it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.known_disagreement")
    add = parser.add_argument
    add("--minutes", type=float, required=True, help="of training")
    add("--output", type=Path, default=Path("benchmarks/results"), help="folder of the result")
    add("--bundle", default="lung_nodule_ct", help="whose network and training are used")
    add("--cases", type=int, default=1000, help="of the cohort; a fifth is held out")
    add("--judged", type=int, default=60, help="of those that are held out, at most")
    arguments = parser.parse_args(sys.argv[1:] if words is None else words)
    with tempfile.TemporaryDirectory() as folder:
        steps, figures = compare(arguments, Path(folder))
    result = {
        "command": f"{parser.prog} {shlex.join(sys.argv[1:] if words is None else words)}",
        "training_steps": steps,
        "cases": len(figures),
        "members": MEMBERS,
        "marginal_members": MARGINAL_MEMBERS,
        "raters": dataclasses.asdict(RATERS),
        **{name: float(np.mean([one[name] for one in figures])) for name in figures[0]},
    }
    write_json(arguments.output / "known_disagreement.json", result)
    print(json.dumps(result, indent=1))
    return result


if __name__ == "__main__":
    main()
