"""Which noise represents what a network draws: sixteen chosen once, instead of anew for each image.

Many members are drawn of slices of the training, all from the same noise. Those are chosen whose
mean energy distance to all is least, the most typical first. On slices of the held-out patients
they are compared with members that are chosen of many for each slice, and with the first ones.

python -m benchmarks.nodules.member_noise --data lidc=/data/lidc
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness.data import Item, load_study
from medsegdiff.bundle import load_bundle
from medsegdiff.core import write_json
from medsegdiff.metrics import sample_set_metrics
from medsegdiff.segmentation import EnsembleInferer, jaccard_distances, representatives

RESULTS = Path("benchmarks/results/nodule_member_noise.json")
BUNDLE = "lung_nodule_ct"
ANEW = 64
"""Members of which those of one slice are chosen."""


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = _parse(words)
    bundle = load_bundle(BUNDLE)
    settings = {"members": arguments.pool, "oversampling": 1, "device": "$torch.device('cpu')"}
    settings |= {"member_noise": list(range(arguments.pool))}
    parser = bundle.parser("inference", settings)
    network = parser.get_parsed_content("network")
    inferer: EnsembleInferer = parser.get_parsed_content("inferer")
    study = load_study(arguments.data, bundle, 0, planes=True, changes={})

    def drawn(items: Sequence[Item]) -> list[tuple[Tensor, Tensor]]:
        found = []
        for item in random.Random(0).sample(list(items), min(arguments.slices, len(items))):
            labels = inferer.ensemble(item["image"], network, "any").labels
            found.append((labels, torch.as_tensor(item["label"]).to(torch.uint8)))
        return found

    distances = torch.zeros(arguments.pool, arguments.pool, dtype=torch.float64)
    for labels, _ in drawn(study.training):
        distances += jaccard_distances(labels, study.num_classes) / arguments.slices
    groups, weights = len(inferer.mirrors), arguments.weights
    chosen = {w: representatives(distances, arguments.count, w, groups) for w in weights}
    held_out = drawn(study.held_out)
    compared: dict[str, Any] = {}
    for w in weights:
        rows = {
            "of the training": lambda _, w=w: chosen[w],
            "of each slice": _anew(w, arguments.count),
        }
        compared[f"{w:g}"] = {name: _figures(held_out, choose) for name, choose in rows.items()}
    compared["the first"] = _figures(held_out, lambda _: list(range(arguments.count)))
    write_json(
        arguments.results,
        {
            "bundle": f"{BUNDLE} {bundle.metadata['version']}",
            "slices": arguments.slices,
            "pool": arguments.pool,
            "mirror_axes": parser["inferer"]["mirror_axes"],
            "member_noise": {f"{w:g}": numbers for w, numbers in chosen.items()},
            "diversity_weight": compared,
        },
    )


def _anew(weight: float, count: int) -> Any:
    """The choice of members of one slice, of the first of them."""

    def choose(labels: Tensor) -> list[int]:
        return representatives(jaccard_distances(labels[:ANEW], 2), count, weight)

    return choose


def _figures(slices: Sequence[tuple[Tensor, Tensor]], choose: Any) -> dict[str, float]:
    """Means over slices of the measures of sets, of members that are chosen."""
    rows = []
    for labels, raters in slices:
        members = labels[choose(labels)].numpy()
        rows.append(sample_set_metrics(members, raters.numpy(), [1]))
    names = ("ged2", "hm_iou", "diversity")
    return {name: round(sum(row[name][0] for row in rows) / len(rows), 4) for name in names}


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodules.member_noise")
    add = parser.add_argument
    add("--data", required=True, help="dataset.json, its folder, or a name in data_manifests/")
    add("--slices", type=int, default=300, help="of the training, and of the held-out patients")
    add("--pool", type=int, default=256, help="noise to choose of")
    add("--count", type=int, default=16, help="to choose")
    add("--weights", type=lambda text: [float(w) for w in text.split(",")], default=[1.0, 0.78])
    add("--results", type=Path, default=RESULTS)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
