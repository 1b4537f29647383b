"""What does each part of ours do? Networks that differ by one switch, trained and judged alike.

python -m benchmarks.accuracy.ablation --data lidc --planes --minutes 0.75 --seeds 2
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
import logging
import shlex
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.contenders import ours
from benchmarks.harness.data import Study, load_study
from benchmarks.harness.result_table import Row
from benchmarks.harness.scores import judge
from benchmarks.harness.timing import Form
from benchmarks.harness.training import Plan, Trained, train
from medsegdiff.bundle import Bundle, load_bundle
from medsegdiff.core import read_json, write_json, write_text

logger = logging.getLogger("benchmarks")

DEFAULT = "as shipped"
SCORES = {"dice": "Dice", "ged2": "GED²", "hm_iou": "HM-IoU", "ece": "ECE"}

_DENOISER = "network_def#denoiser#"
_OFF = {
    "uncertain spatial attention (U-SA)": "anchor_attention",
    "dynamic conditional encoding": "dynamic_encoding",
    "FF-Parser": "ff_parser",
    "SS-Former": "ss_former",
}
_MEAN: dict[str, Any] = {
    "samples_per_target": 1,
    _DENOISER + "further_inputs": 0,
    "train#loss#energy_weight": 0.0,
    "train#loss#noise_weight": 1.0,
    "train#loss#mask_weight": 1.0,
}
"""An ordinary denoiser: it answers with the mean of p(x_0 | x_t)."""


def _process(name: str, **values: Any) -> dict[str, Any]:
    return {"process": {"_target_": f"medsegdiff.diffusion.{name}", **values}}


TRAINED: dict[str, dict[str, dict[str, Any]]] = {
    "modules": {
        **{f"without {name}": {_DENOISER + key: False} for name, key in _OFF.items()},
        "without any of the four": {_DENOISER + key: False for key in _OFF.values()},
        **{
            f"conditioning by {name}": {_DENOISER + "conditioning": name}
            for name in ("concat", "cross_attention", "film")
        },
        "anchor not corrected": {_DENOISER + "add_anchor": False},
        "states at the image's size": {_DENOISER + "stride": 1},
    },
    "loss and target": {
        "mean of p(x_0 | x_t), target x_0": _MEAN,
        "mean, x_0, weights min_snr": _MEAN | {"train#loss#noise_weighting": "min_snr"},
        "mean, x_0, weights snr_plus_1": _MEAN | {"train#loss#noise_weighting": "snr_plus_1"},
        "mean, target eps": _MEAN | {"target": "eps", _DENOISER + "add_anchor": False},
        "mean, target v": _MEAN | {"target": "v", _DENOISER + "add_anchor": False},
        "mean, x_0, self-conditioning": _MEAN
        | {"network_def#self_conditioning": 0.5, _DENOISER + "further_inputs": 1},
        "mean, x_0, recycling": _MEAN | {"network_def#recycling": True},
        "3 samples_per_target": {"samples_per_target": 3},
        "2 draws an image": {"train#prepare_batch#draws": 2},
    },
    "process": {
        "Gaussian, input scale 0.25": {"process#input_scale": 0.25},
        "Gaussian, input scale 1": {"process#input_scale": 1.0},
        "categorical": _process("categorical.CategoricalProcess"),
        "rectified flow": _process("flow.RectifiedFlow"),
        "rectified flow from the anchor": _process("flow.RectifiedFlow", base="anchor"),
    },
}
"""Group -> variant -> values of ``configs/train`` that differ from the bundle's."""

SAMPLED: dict[str, dict[str, dict[str, Any]]] = {
    "steps": {f"{n} steps": {"steps": n} for n in (1, 2, 4, 10, 50)},
    "members": {f"{n} members": {"members": n} for n in (1, 2, 4, 8, 16, 32)},
    "sampler, 4 steps": {
        "ddim, eta 0": {"steps": 4, "sampler_options": {"eta": 0.0}},
        "ddpm": {"steps": 4, "sampler": "ddpm", "sampler_options": {}},
        "dpm_solver_2m": {"steps": 4, "sampler": "dpm_solver_2m", "sampler_options": {}},
        "warm start from the anchor at 0.5": {"steps": 4, "inferer#warm_start": 0.5},
    },
    "mean": {
        "members alone": {"anchor_share": 0.0},
        "anchor alone": {"anchor_share": 1.0},
    },
}
"""Group -> variant -> values of ``configs/inference``, with the weights of the default."""


def compare(
    study: Study, bundle: Bundle, arguments: argparse.Namespace, done: Sequence[Row]
) -> Iterator[Row]:
    """A row for each variant and seed that is not done; all variants of a seed, then the next.

    What only samples differently uses the weights of the bundle's own network.
    """
    known = {(row["variant"], row["seed"]) for row in done}

    def missing(
        groups: Mapping[str, Mapping[str, Any]], seed: int
    ) -> list[tuple[str, str, dict[str, Any]]]:
        return [
            each
            for each in _variants(groups)
            if (each[1], seed) not in known and _wanted(arguments, each[0])
        ]

    for seed in range(arguments.seeds):
        default, sampled = missing({"": {DEFAULT: {}}}, seed), missing(SAMPLED, seed)
        if default or sampled:
            trained = _train(study, bundle, seed, arguments)
            for group, variant, changes in default + sampled:
                row = _row(study, bundle, trained, changes, arguments)
                yield row | _names(group, variant, seed)
        for group, variant, changes in missing(TRAINED, seed):
            whole = _with_parents(bundle.parser("train").config, study.changes | changes)
            changed = dataclasses.replace(study, changes=whole)
            trained = _train(changed, bundle, seed, arguments)
            row = _row(changed, bundle, trained, _sampler_for(changes), arguments)
            yield row | _names(group, variant, seed)


def _with_parents(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of a configuration's top values alone, so that they may add keys within."""
    changed = copy.deepcopy(dict(config))
    for key, value in changes.items():
        *parents, last = key.split("#")
        place = changed
        for parent in parents:
            place = place[parent]
        place[last] = value
    return {key: changed[key] for key in {key.split("#")[0] for key in changes}}


def _variants(groups: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for group, variants in groups.items():
        for variant, changes in variants.items():
            yield group, variant, changes


def _wanted(arguments: argparse.Namespace, group: str) -> bool:
    return not arguments.groups or not group or group in arguments.groups


def _names(group: str, variant: str, seed: int) -> Row:
    return {"group": group, "variant": variant, "seed": seed}


def _sampler_for(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The inference that goes with a training: one step is of no use to a network of means."""
    found: dict[str, Any] = {}
    if changes.get("process", {}).get("_target_", "").endswith("CategoricalProcess"):
        found |= {"sampler": "ancestral", "sampler_options": {}}
    if changes.get("samples_per_target") == 1:
        found["steps"] = 10
    return found


def _train(study: Study, bundle: Bundle, seed: int, arguments: argparse.Namespace) -> Trained:
    parser = bundle.parser("train", arguments.changes)
    plan = Plan(
        60.0 * arguments.minutes,
        float(parser.get_parsed_content("learning_rate")),
        seed,
        parser.get_parsed_content("device"),
        arguments.precision,
        arguments.max_steps,
    )
    torch.manual_seed(seed)
    return train(ours.medsegdiff(study, bundle, {}), study, plan)


def _row(
    study: Study,
    bundle: Bundle,
    trained: Trained,
    inference: Mapping[str, Any],
    arguments: argparse.Namespace,
) -> Row:
    settings = {"members": arguments.members, "steps": arguments.steps}
    settings = {name: value for name, value in settings.items() if value is not None}
    settings = _with_parents(bundle.parser("inference").config, settings | dict(inference))
    contender = ours.medsegdiff(study, bundle, settings)
    contender.networks = trained.networks
    device = next(trained.networks[0].parameters()).device
    form = Form("channels_last", arguments.precision)
    scores = judge(contender, study, form, device, cases=arguments.cases)
    return {
        "dataset": study.name,
        **{name: getattr(scores, name) for name in SCORES},
        "cases": scores.cases,
        "members": contender.members,
        "steps": contender.steps,
        "training_steps": trained.steps,
        "train_seconds": trained.seconds,
        "minutes": arguments.minutes,
        "command": arguments.command,
    }


def page(rows: Sequence[Row]) -> str:
    """Means over the seeds, and what they differ by from the default of the same seeds."""
    first = rows[0]
    seeds = sorted({row["seed"] for row in rows})
    base = {row["seed"]: row for row in rows if row["variant"] == DEFAULT}
    names = {key: head for key, head in SCORES.items() if first[key] is not None}
    lines = [
        f"# Ablation on {first['dataset']}\n",
        f"{first['minutes']:g} minutes of training each, at most {len(seeds)} seeds, "
        f"{first['cases']} held-out images. Each score is the mean over the seeds; after it, what "
        "it differs by from the bundle as shipped with the same seeds, ± that difference's "
        "standard deviation over the seeds. A difference within twice the deviation says little.\n",
        "| variant | " + " | ".join(names.values()) + " | seeds | steps | members | trained |",
        "| --- |" + " ---: |" * (len(names) + 4),
    ]
    for group, of_group in itertools.groupby(_ordered(rows), key=lambda row: row["group"]):
        if group:
            lines.append(f"| **{group}** |" + " |" * (len(names) + 4))
        for variant, same in itertools.groupby(of_group, key=lambda row: row["variant"]):
            lines.append(_line(variant, list(same), base, list(names)))
    return "\n".join([*lines, "\n```console", first["command"], "```\n"])


def _ordered(rows: Sequence[Row]) -> list[Row]:
    order = [DEFAULT]
    order += [variant for _, variant, _ in (*_variants(TRAINED), *_variants(SAMPLED))]
    return sorted(rows, key=lambda row: (order.index(row["variant"]), row["seed"]))


def _line(variant: str, rows: list[Row], base: Mapping[int, Row], names: list[str]) -> str:
    cells = [variant.replace("|", "\\|")]
    for name in names:
        cell = f"{statistics.fmean(row[name] for row in rows):.3f}"
        apart = [row[name] - base[row["seed"]][name] for row in rows if row["seed"] in base]
        if variant != DEFAULT and apart:
            spread = f" ± {statistics.stdev(apart):.3f}" if len(apart) > 1 else ""
            cell += f" ({statistics.fmean(apart):+.3f}{spread})"
        cells.append(cell)
    trained = round(statistics.fmean(row["training_steps"] for row in rows))
    cells += [f"{len(rows)}", f"{rows[0]['steps']}", f"{rows[0]['members']}", f"{trained}"]
    return "| " + " | ".join(cells) + " |"


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.ablation")
    add = parser.add_argument
    add("--data", required=True, help="dataset.json, its folder, or a name in data_manifests/")
    add("--minutes", type=float, required=True, help="training of each")
    add("--seeds", type=int, default=2, help="of each variant")
    add("--output", type=Path, default=Path("benchmarks/results"), help="folder of the table")
    add("--groups", type=lambda text: text.split(","), help="of variants, joined by commas")
    add("--members", type=int, default=16, help="masks of an image")
    add("--steps", type=int, help="of a mask; the bundle's unless told")
    add("--cases", type=int, help="of the held-out fold, at most")
    add("--fold", type=int, default=0, help="held out")
    add("--bundle", default="hippocampus_mr", help="that is varied")
    add("--planes", action="store_true", help="cut volumes into planes (LIDC)")
    add("--precision", choices=("fp32", "bf16"), default="bf16")
    add("--max-steps", type=int, help="of training, at most, for trying things out")
    arguments = parser.parse_args(words)
    known = [*TRAINED, *SAMPLED]
    for group in arguments.groups or ():
        if group not in known:
            parser.error(f"{group!r} is none of {', '.join(known)}")
    arguments.command = f"{parser.prog} {shlex.join(words)}"
    return arguments


def main(words: Sequence[str] | None = None, changes: dict[str, Any] | None = None) -> list[Row]:
    """The command; ``changes`` replace values of the bundle's ``train`` configuration.

    Rows of an earlier call with the same data and minutes are kept and not computed again.

    Raises:
        InputError: the data or the bundle cannot be used.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments = _parse(sys.argv[1:] if words is None else words)
    arguments.changes = dict(changes or {})
    bundle = load_bundle(arguments.bundle)
    study = load_study(
        arguments.data, bundle, arguments.fold, planes=arguments.planes, changes=arguments.changes
    )
    path = arguments.output / f"ablation_{study.name.replace(' ', '_')}.json"
    rows = [row for row in read_json(path) or [] if row["minutes"] == arguments.minutes]
    for row in compare(study, bundle, arguments, rows):
        logger.info("%s", json.dumps({key: row[key] for key in ("variant", "seed", *SCORES)}))
        rows.append(row)
        write_json(path, rows)
        write_text(path.with_suffix(".md"), page(rows))
    return rows


if __name__ == "__main__":
    main()
