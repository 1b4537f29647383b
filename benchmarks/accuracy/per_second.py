"""How good are masks for the time they take? Ours and others', trained and timed alike.

python -m benchmarks.accuracy --data hippocampus_mr --minutes 3
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import logging
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.contenders import diffusion_unet, ours, ssn, unets
from benchmarks.harness import result_table as table
from benchmarks.harness.arithmetic import cost
from benchmarks.harness.contender import Contender
from benchmarks.harness.data import Study, load_study
from benchmarks.harness.result_table import REFERENCE, Row
from benchmarks.harness.scores import Scores, judge
from benchmarks.harness.timing import Form, interleaved, measured_forms
from benchmarks.harness.training import Look, Plan, Trained, train
from medsegdiff.bundle import Bundle, load_bundle
from medsegdiff.cli.common import parse_overrides

logger = logging.getLogger("benchmarks")

Build = Callable[[Study, Bundle, int], Contender]
"""(study, bundle of ours, members of those that sample) -> contender."""

CONTENDERS: dict[str, Build] = {
    "unet": lambda study, bundle, members: unets.unet(study),
    "dynunet": lambda study, bundle, members: unets.dynunet(study),
    "unet_mc_dropout": lambda study, bundle, members: unets.unet_mc_dropout(study, members),
    "unet_deep_ensemble": lambda study, bundle, members: unets.unet_deep_ensemble(study),
    "diffusion_unet_ddim50": lambda study, bundle, members: diffusion_unet.diffusion_unet(
        study, members
    ),
    "ssn": lambda study, bundle, members: ssn.ssn(study, members),
    "medsegdiff": lambda study, bundle, members: ours.medsegdiff(
        study, bundle, {"members": members}
    ),
    "medsegdiff_anchor": lambda study, bundle, members: ours.medsegdiff_anchor(study, bundle),
}
BY_STEPS: dict[str, Callable[[Study, Bundle, int, int], Contender]] = {
    "diffusion_unet_ddim50": lambda study, bundle, members, steps: diffusion_unet.diffusion_unet(
        study, members, steps
    ),
    "medsegdiff": lambda study, bundle, members, steps: ours.medsegdiff(
        study, bundle, {"members": members, "steps": steps}, f"medsegdiff_{steps}_steps"
    ),
}
"""Those that may take fewer or more steps, with the same weights."""


def compare(arguments: argparse.Namespace) -> Iterator[Row]:
    """Train, time and judge the chosen contenders; a row as soon as one is judged.

    Raises:
        InputError: the data or the bundle cannot be used.
    """
    bundle = load_bundle(arguments.bundle)
    changes = arguments.changes
    study = load_study(
        arguments.data, bundle, arguments.fold, planes=arguments.planes, changes=changes
    )
    parser = bundle.parser("train", changes)
    device = parser.get_parsed_content("device")
    plan = Plan(
        60.0 * arguments.minutes,
        float(parser.get_parsed_content("learning_rate")),
        arguments.seed,
        device,
        arguments.precision,
        arguments.max_steps,
        arguments.looks,
    )

    def build(name: str) -> Contender:
        torch.manual_seed(plan.seed)
        return CONTENDERS[name](study, bundle, arguments.members)

    chosen = []
    for name in arguments.contenders or CONTENDERS:
        chosen.append(build(name))
        for steps in arguments.steps if name in BY_STEPS else ():
            if steps != chosen[-1].steps:
                chosen.append(BY_STEPS[name](study, bundle, arguments.members, steps))
    trained = _train_all(chosen, build, study, plan, arguments.cases) if plan.seconds > 0 else {}
    images = [item["image"].to(device) for item in study.held_out[: arguments.images]]
    timed = list(chosen)
    if all(contender.name != REFERENCE for contender in chosen):
        timed.append(build(REFERENCE))  # untrained: a pass takes as long
    for contender in timed:
        contender.networks = [network.to(device).eval() for network in contender.networks]
    logger.info("timing %s", ", ".join(contender.name for contender in timed))
    forms = measured_forms(timed, images[0], study)
    times = interleaved(timed, forms, images, arguments.rounds)
    for contender in chosen:
        form = forms[contender.name]
        scores = None
        if contender.weights_name in trained:
            logger.info("judging %s", contender.name)
            limits = arguments.evaluation_minutes, arguments.cases
            scores = judge(contender, study, form, device, *limits)
        row = _row(contender, study, times, form, trained.get(contender.weights_name), scores)
        yield row | _cost(contender, images[0]) | _settings(arguments, device)


def _train_all(
    chosen: Sequence[Contender],
    build: Callable[[str], Contender],
    study: Study,
    plan: Plan,
    cases: int | None,
) -> dict[str, Trained]:
    """Weights by name; contenders that share them are trained once. Gives each its networks."""
    trained: dict[str, Trained] = {}
    for contender in chosen:
        name = contender.weights_name
        if name not in trained:
            logger.info("training %s", name)
            teacher = contender if name == contender.name else build(name)
            slow = teacher.part is not None  # a look would take longer than the training
            look = None if slow else _look(teacher, study, plan, cases)
            trained[name] = train(teacher, study, plan, look)
        contender.networks = copy.deepcopy(trained[name].networks)
    return trained


def _look(contender: Contender, study: Study, plan: Plan, cases: int | None) -> Look:
    """Dice of a contender whose network is at some point of its training."""
    form = Form("channels_last", plan.precision)

    def dice(network: nn.Module) -> float:
        at_work = dataclasses.replace(contender, networks=[network])
        return judge(at_work, study, form, plan.device, cases=cases).dice

    return dice


def _row(
    contender: Contender,
    study: Study,
    times: dict[str, float],
    form: Form,
    trained: Trained | None,
    scores: Scores | None,
) -> Row:
    judged = dataclasses.asdict(scores) if scores else {}
    return {
        "contender": contender.name,
        "dataset": study.name,
        **{name: _finite(judged.get(name)) for name in ("dice", "ged2", "hm_iou", "ece")},
        "ms_per_image": times[contender.name],
        "ratio_to_dynunet": times[contender.name] / times[REFERENCE],
        "train_seconds": trained.seconds if trained else 0.0,
        "parameters": contender.parameters,
        "cases": judged.get("cases"),
        "training_steps": trained.steps if trained else 0,
        "skipped_steps": trained.skipped if trained else 0,
        "curve": trained.curve if trained else [],
        "precision": form.precision,
        "memory_format": form.memory_format,
        "members": contender.members,
        "steps": contender.steps,
        "note": contender.note,
    }


def _cost(contender: Contender, image: torch.Tensor) -> Row:
    counted = cost(contender, image)
    return {
        "evaluations": sum(counted.passes.values()),
        "passes": counted.passes,
        "macs": counted.macs,
    }


def _settings(arguments: argparse.Namespace, device: torch.device) -> Row:
    return {
        "minutes": arguments.minutes,
        "fold": arguments.fold,
        "seed": arguments.seed,
        "train_precision": arguments.precision,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": device.type,
        "command": arguments.command,
    }


def _finite(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy")
    add = parser.add_argument
    add("--data", required=True, help="dataset.json, its folder, or a name in data_manifests/")
    add("--minutes", type=float, required=True, help="training of each; 0: speed alone")
    add("--output", type=Path, default=Path("benchmarks/results"), help="folder of the table")
    add("--contenders", type=_names, help="some of them, joined by commas; all if left out")
    add("--steps", type=_counts, default=(), help="a row for each of these, of ours and MONAI's")
    add("--members", type=int, default=16, help="masks of those that sample")
    add("--seed", type=int, default=0)
    add("--fold", type=int, default=0, help="held out")
    add("--bundle", default="hippocampus_mr", help="of ours, and of everybody's transforms")
    add("--planes", action="store_true", help="cut volumes into planes (LIDC)")
    add("--precision", choices=("fp32", "bf16"), default="bf16", help="of training, for all")
    add("--rounds", type=int, default=5, help="of timing")
    add("--images", type=int, default=4, help="that are timed")
    add("--evaluation-minutes", type=float, default=10.0, help="at most, to judge a contender")
    add("--cases", type=int, help="of the held-out fold, at most, to judge a contender")
    add("--looks", type=int, default=0, help="at Dice during training, for its learning curve")
    add(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value of the bundle's configs/train; can be repeated",
    )
    add("--max-steps", type=int, help="of training, at most, for trying things out")
    arguments = parser.parse_args(words)
    arguments.command = f"{parser.prog} {shlex.join(words)}"
    return arguments


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(CONTENDERS)}")
    return names


def _counts(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def main(words: Sequence[str] | None = None, changes: dict[str, Any] | None = None) -> list[Row]:
    """The command; ``changes`` replace values of the bundle's ``train`` configuration."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments = _parse(sys.argv[1:] if words is None else words)
    arguments.changes = parse_overrides(arguments.settings) | (changes or {})
    new: list[Row] = []
    for row in compare(arguments):
        new.append(row)
        paths = table.write(table.merged(new, arguments.output), arguments.output)
    print(*paths, sep="\n")
    return new
