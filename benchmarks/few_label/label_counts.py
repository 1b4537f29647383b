"""Dice from few labelled scans: from scratch, with unlabelled scans, with synthetic pairs.

python -m benchmarks.few_label --data hippocampus_mr=/data/hippocampus
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from benchmarks.few_label.labelled_scans import Item, load_items, num_classes_of
from benchmarks.few_label.methods import METHODS, Setting
from benchmarks.few_label.pair_measures import drawn_cases
from medsegdiff.bundle import load_bundle
from medsegdiff.core import read_json, write_json, write_text
from medsegdiff.data import Case, load_manifest
from medsegdiff.synthesis import mean_dice
from medsegdiff.viz import save_png

NAME = "label_efficient"
NAMES = {
    "unet": "(a) U-Net from scratch",
    "encoder": "(a) our encoder from scratch",
    "diffusion": "(b) conditional diffusion from scratch",
    "features": "(c) features of a diffusion of images, perceptrons",
    "pretrained": "(d) encoder started from it",
    "pretrained_diffusion": "(d) conditional diffusion started from it",
    "self_trained": "(d) encoder started from it, self-trained",
    "synthetic": "(e) U-Net with synthetic pairs",
}
COUNTS = (5, 1, 20, 3, 10)
COLOURS = ("#000000", "#999999", "#56B4E9", "#E69F00", "#009E73", "#0072B2", "#D55E00", "#CC79A7")
"""Okabe and Ito's palette, one a method."""

Row = dict[str, Any]


def main(words: Sequence[str] | None = None) -> list[Row]:
    """Train what is not in the results yet, and write them after each run."""
    options = parsed(words)
    training, held_out = load_manifest(options.data).split(options.fold)
    test = load_items(held_out, masks=True)
    scans = {
        case.id: item for case, item in zip(training, load_items(training, masks=True), strict=True)
    }
    file = options.output / f"{NAME}.json"
    for count in options.counts:
        for draw in range(options.draws):
            setting = setting_of(training, scans, count, draw, options)
            for method in options.methods:
                key = {"method": method, "labelled_cases": count, "draw": draw}
                rows = (read_json(file) or {"rows": []})["rows"]
                if any(row.items() >= key.items() for row in rows):
                    continue
                row = key | measured(method, setting, test)
                print(row, flush=True)
                content = read_json(file) or {"rows": []}  # another process may have written
                content["rows"].append(row)
                content["command"] = "python -m benchmarks.few_label " + shlex.join(
                    words or sys.argv[1:]
                )
                written(content, options.output)
    found: list[Row] = (read_json(file) or {"rows": []})["rows"]
    return found


def setting_of(
    training: Sequence[Case],
    scans: Mapping[str, Item],
    count: int,
    draw: int,
    options: argparse.Namespace,
) -> Setting:
    """What the methods are given in one draw: masks of ``count`` scans, and images of all."""
    labelled, others = drawn_cases(training, count, draw)
    return Setting(
        [scans[case.id] for case in labelled],
        [{"image": scans[case.id]["image"]} for case in others],
        (labelled, others),
        num_classes_of(list(scans.values())),
        options.seconds,
        draw,
        load_bundle(options.few),
        load_bundle("hippocampus_mr"),
        options.work,
    )


def measured(method: str, setting: Setting, test: Sequence[Item]) -> Row:
    """Train a method and judge it by held-out scans."""
    torch.manual_seed(setting.seed)
    setting.further.clear()
    restart_peak()
    spent = time.process_time()
    mark = METHODS[method](setting)
    trained = time.process_time()
    known = range(1, setting.num_classes)
    scores = [mean_dice(item["label"], mark(item["image"]), known) for item in test]
    return {
        "dice": round(sum(scores) / len(scores), 4),
        "seconds": setting.seconds,
        "training_cpu_seconds": round(trained - spent, 1),
        "marking_cpu_seconds_a_scan": round((time.process_time() - trained) / len(test), 2),
        "peak_memory_mb": peak_mb(),
        **setting.further,
    }


def restart_peak() -> None:
    """Forget the greatest resident memory so far (Linux)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def peak_mb() -> int | None:
    """Greatest resident memory of this process since then, in MiB; None where it is not told."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(lines[0].split()[1]) // 1024


def written(content: dict[str, Any], folder: Path) -> None:
    """Write rows, table and plot."""
    order = list(NAMES)
    rows = sorted(
        content["rows"],
        key=lambda row: (order.index(row["method"]), row["labelled_cases"], row["draw"]),
    )
    write_json(folder / f"{NAME}.json", content | {"rows": rows})
    write_text(folder / f"{NAME}.md", "\n".join(page(content | {"rows": rows})) + "\n")
    save_png(plot(rows), folder / f"{NAME}.png")


def dice_of(rows: Sequence[Row], method: str, count: int) -> list[float]:
    """Dice of all draws."""
    return [r["dice"] for r in rows if (r["method"], r["labelled_cases"]) == (method, count)]


def page(content: dict[str, Any]) -> Iterator[str]:
    """The results as Markdown, line by line."""
    rows = content["rows"]
    counts = sorted({row["labelled_cases"] for row in rows})
    yield "# Few labels"
    yield f"`{content['command']}`\n"
    yield f"![Dice by labelled cases]({NAME}.png)\n"
    yield "Held-out Dice, mean over draws of the labelled cases (least to greatest):\n"
    yield "| labelled cases | " + " | ".join(map(str, counts)) + " |"
    yield "| --- |" + " --- |" * len(counts)
    for method, name in NAMES.items():
        cells = []
        for count in counts:
            dice = dice_of(rows, method, count)
            span = f" ({min(dice):.3f} to {max(dice):.3f})" if len(dice) > 1 else ""
            cells.append(f"{sum(dice) / len(dice):.3f}{span}" if dice else "")
        if any(cells):
            yield f"| {name} | " + " | ".join(cells) + " |"
    yield from gains(rows, counts)
    yield "\nCost, mean over all runs:\n"
    yield "| | training, CPU seconds | marking a scan, CPU seconds | peak memory, MiB |"
    yield "| --- | --- | --- | --- |"
    for method, name in NAMES.items():
        mine = [row for row in rows if row["method"] == method]
        if mine:
            spent, marking = (
                sum(row[key] for row in mine) / len(mine)
                for key in ("training_cpu_seconds", "marking_cpu_seconds_a_scan")
            )
            peak = max((row["peak_memory_mb"] or 0) for row in mine)
            yield f"| {name} | {spent:.0f} | {marking:.2f} | {peak} |"


def gains(rows: Sequence[Row], counts: Sequence[int]) -> Iterator[str]:
    """What the best of (c) to (e) has more than the U-Net from scratch, on the same draws."""
    yield "\nThe best of (c) to (e), and what it has more than the U-Net (a) on the same draws:\n"
    yield "| labelled cases | best | gain | draws |"
    yield "| --- | --- | --- | --- |"
    for count in counts:
        mine = [row for row in rows if row["labelled_cases"] == count]
        dice = {(row["method"], row["draw"]): row["dice"] for row in mine}
        found = []
        for method in NAMES:
            draws = [d for m, d in dice if m == method and ("unet", d) in dice]
            if draws and NAMES[method][:3] in ("(c)", "(d)", "(e)"):
                more = [dice[method, draw] - dice["unet", draw] for draw in draws]
                found.append((sum(more) / len(more), len(draws), NAMES[method]))
        if found:
            gain, number, name = max(found)
            yield f"| {count} | {name} | {gain:+.3f} | {number} |"


def plot(rows: Sequence[Row]) -> Figure:
    """Dice against labelled cases: the mean of the draws, from the least to the greatest."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    counts = sorted({row["labelled_cases"] for row in rows})
    for number, (method, name) in enumerate(NAMES.items()):
        there = [count for count in counts if dice_of(rows, method, count)]
        if not there:
            continue
        dice = [dice_of(rows, method, count) for count in there]
        means = [sum(d) / len(d) for d in dice]
        low = [m - min(d) for m, d in zip(means, dice, strict=True)]
        high = [max(d) - m for m, d in zip(means, dice, strict=True)]
        apart = [count * 1.02 ** (number - 3) for count in there]
        colour = COLOURS[number]
        axes.errorbar(apart, means, [low, high], marker="o", ms=4, color=colour, label=name)
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("labelled cases")
    axes.set_ylabel("held-out Dice")
    axes.legend(fontsize=8, frameon=False)
    axes.grid(alpha=0.3)
    return figure


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few_label", description=__doc__)
    parser.add_argument("--data", default="hippocampus_mr")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--draws", type=int, default=3, help="of the labelled cases")
    parser.add_argument("--seconds", type=float, default=60.0, help="of CPU, to learn from masks")
    parser.add_argument("--few", default="hippocampus_label_efficient", help="its bundle")
    parser.add_argument("--work", type=Path, default=Path("runs/label_efficient"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args(words)
