"""Pairs of image and mask from few labelled and many unlabelled scans, and what they are for.

python -m benchmarks.few_label.synthetic_pairs --data hippocampus_mr=/data/mr --synthetic synthetic
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.few_label.labelled_scans import load_items
from benchmarks.few_label.pair_making import PRETRAINING_MINUTES, make_pairs
from benchmarks.few_label.pair_measures import (
    dice_of,
    drawn_cases,
    encoder_features,
    measured_copies,
    measured_fidelity,
    mixed,
)
from medsegdiff.core import read_json, write_json, write_text
from medsegdiff.data import load_manifest
from medsegdiff.synthesis import save_distance_chart

NAME = "synthetic_pairs"


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, and write ``synthetic_pairs.json``, ``.md`` and ``.png``; gives what is written."""
    options = parsed(words)
    manifest = load_manifest(options.data)
    training, held_out = manifest.split(options.fold)
    result: dict[str, Any] = read_json(options.output / f"{NAME}.json") or {}
    command = "python -m benchmarks.few_label.synthetic_pairs " + shlex.join(words or sys.argv[1:])
    if options.synthetic:
        result["command"] = command
        real, other = load_items(training, masks=False), load_items(held_out, masks=False)
        drawn = load_items(load_manifest(options.synthetic).cases, masks=False)
        images = [[item["image"] for item in items] for items in (real, drawn, other)]
        features = [encoder_features(some) for some in images]
        result["synthesis"] = without_pairs(read_json(options.synthetic / "synthesis.json"))
        result["fidelity"] = measured_fidelity(features[0], features[1], features[2])
        result["copies"] = measured_copies(torch.stack(images[0]), torch.stack(images[1]))
        written(result, options.output)
    rows: list[dict[str, Any]] = result.setdefault("usefulness", [])
    test = load_items(held_out, masks=True) if options.draws else []
    if options.draws:
        result["usefulness_command"] = command
    for draw in range(options.draws):
        labelled, others = drawn_cases(training, options.labelled, draw)
        folder = options.work / f"{options.labelled}-{draw}-{options.count}-{options.minutes:g}"
        pairs = make_pairs(
            labelled,
            others,
            folder,
            count=options.count,
            seed=draw,
            minutes=options.minutes,
            pretraining_minutes=options.pretraining_minutes,
        )
        real, synthetic = load_items(labelled, masks=True), load_items(pairs, masks=True)
        for share in (0.0, options.share):
            key = {
                "labelled_cases": options.labelled,
                "draw": draw,
                "share": share,
                "pairs": len(pairs) if share else 0,
                "training_minutes": options.training_minutes,
            }
            if not any(row.items() >= key.items() for row in rows):
                items = mixed(real, synthetic, share) if share else real
                rows.append(key | {"dice": dice_of(items, test, options.training_minutes, draw)})
                written(result, options.output)
    return result


def without_pairs(record: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a ``synthesis.json`` says of all pairs together."""
    left_out = ("pairs", "real_distances")
    return record and {name: value for name, value in record.items() if name not in left_out}


def written(result: dict[str, Any], folder: Path) -> None:
    """Write what there is so far."""
    write_json(folder / f"{NAME}.json", result)
    write_text(folder / f"{NAME}.md", "\n".join(page(result)) + "\n")
    if "copies" in result:
        copies = result["copies"]
        limits = copies["real"], copies["drawn"], copies["copy_distance"]
        save_distance_chart(folder / f"{NAME}.png", *limits)


def page(result: dict[str, Any]) -> Iterator[str]:
    """The results as Markdown, line by line."""
    yield "# Synthetic pairs"
    if "copies" in result:
        made, near, like = result["synthesis"], result["copies"], result["fidelity"]
        dropped = ", ".join(f"{n} by {rule}" for rule, n in made["dropped"].items())
        yield f"\n## Cases drawn by {made['settings']['bundle']}"
        yield f"`{result['command']}`\n"
        yield f"{made['drawn']} drawn, {made['kept']} kept; dropped: {dropped}.\n"
        yield f"![distances]({NAME}.png)\n"
        yield "| distance to the nearest training image | median | least |"
        yield "| --- | --- | --- |"
        yield f"| drawn | {near['median_drawn']:.3f} | {near['least_drawn']:.3f} |"
        yield f"| real, itself left out | {near['median_real']:.3f} | {near['real'][0]:.3f} |"
        yield f"\nA copy is nearer than {near['copy_distance']:.3f}, the 1st percentile of the real"
        yield f"ones' distances: {near['copies']} of {len(near['drawn'])} kept cases are.\n"
        yield f"| against {like['images_a_side']} training images | Frechet | precision | recall |"
        yield "| --- | --- | --- | --- |"
        sides = like["held_out_a_side"]
        names = {"drawn": "drawn", "real": "other training images"}
        names |= {"held_out": f"held-out images ({sides} a side)"}
        for kind, name in names.items():
            values = [like[kind][figure] for figure in ("frechet", "precision", "recall")]
            yield f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |"
    rows = result.get("usefulness", [])
    if rows:
        yield "\n## What pairs are for: held-out Dice of a U-Net"
        yield f"`{result['usefulness_command']}`\n"
        yield "| labelled | draw | minutes | pairs | share | Dice |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for row in sorted(
            rows, key=lambda row: [row[k] for k in ("labelled_cases", "draw", "share")]
        ):
            figures = [
                row[k] for k in ("labelled_cases", "draw", "training_minutes", "pairs", "share")
            ]
            yield "| " + " | ".join(f"{v:g}" for v in figures) + f" | {row['dice']:.4f} |"


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="hippocampus_mr")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--synthetic", type=Path, help="what medsegdiff synthesize wrote")
    parser.add_argument("--labelled", type=int, default=5)
    parser.add_argument("--draws", type=int, default=3, help="of the labelled cases")
    parser.add_argument("--count", type=int, default=60, help="pairs a draw")
    parser.add_argument("--share", type=float, default=0.5, help="of pairs in training")
    parser.add_argument("--minutes", type=float, default=2.0, help="to make the pairs")
    parser.add_argument("--pretraining-minutes", type=float, default=PRETRAINING_MINUTES)
    parser.add_argument("--training-minutes", type=float, default=4.0, help="of each U-Net")
    parser.add_argument("--work", type=Path, default=Path("runs/synthetic_pairs"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
