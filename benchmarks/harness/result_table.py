"""Rows of the comparison: kept from earlier calls, written as JSON and as a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.arithmetic import PUBLISHED
from medsegdiff.core import read_json, write_json, write_text

Row = dict[str, Any]

NAME = "accuracy_per_second"
KEYS = (
    "contender",
    "dataset",
    "dice",
    "ged2",
    "hm_iou",
    "ece",
    "ms_per_image",
    "ratio_to_dynunet",
    "train_seconds",
    "parameters",
    "evaluations",
)
"""Of every row; further ones say how it was measured."""
COLUMNS = {
    "contender": "contender",
    "dice": "Dice",
    "ged2": "GED²",
    "hm_iou": "HM-IoU",
    "ece": "ECE",
    "ms_per_image": "ms an image",
    "ratio_to_dynunet": "× DynUNet",
    "macs": "GMAC",
    "evaluations": "passes",
    "parameters": "parameters",
    "train_seconds": "training s",
    "training_steps": "steps",
    "members": "members",
    "precision": "precision",
    "memory_format": "memory",
    "cases": "cases",
}
"""Of the page: key -> head."""
OURS, REFERENCE = "medsegdiff", "dynunet"
BETTER = {
    "dice": ("Dice", max),
    "ged2": ("GED²", min),
    "hm_iou": ("HM-IoU", max),
    "ece": ("ECE", min),
    "ms_per_image": ("time an image", min),
    "macs": ("arithmetic", min),
    "parameters": ("parameters", min),
}
"""Column -> its name, and which end is the good one."""


def merged(rows: Sequence[Row], folder: Path) -> list[Row]:
    """New rows, and before them those of earlier calls that still stand beside them.

    A row is kept if no new one is of its contender and data set, and if the new rows of its data
    set, where there are any, had the same minutes and fold.
    """
    before = read_json(folder / f"{NAME}.json") or []
    new = {(row["contender"], row["dataset"]) for row in rows}
    settings = {row["dataset"]: (row["minutes"], row["fold"]) for row in rows}
    kept = [
        row
        for row in before
        if (row["contender"], row["dataset"]) not in new
        and settings.get(row["dataset"], (row["minutes"], row["fold"]))
        == (row["minutes"], row["fold"])
    ]
    return [*kept, *rows]


def write(rows: Sequence[Row], folder: Path) -> tuple[Path, Path]:
    """``accuracy_per_second.json`` and ``.md`` in the folder."""
    paths = folder / f"{NAME}.json", folder / f"{NAME}.md"
    write_json(paths[0], list(rows))
    write_text(paths[1], page(rows))
    return paths


def page(rows: Sequence[Row]) -> str:
    """The rows for people, a section per data set, as Markdown."""
    parts = ["# Accuracy per second\n"]
    for name in dict.fromkeys(row["dataset"] for row in rows):
        parts.append(_section(name, [row for row in rows if row["dataset"] == name]))
    parts.append(_published())
    return "\n".join(parts)


def losses_to(rows: Sequence[Row], ours: str = OURS) -> list[str]:
    """What wins where ours does not: a line for each column in which another row is better."""
    mine = next((row for row in rows if row["contender"] == ours), None)
    if mine is None:
        return []
    lines = []
    for key, (title, best) in BETTER.items():
        others = [row for row in rows if row is not mine and row[key] is not None]
        if mine[key] is None or not others:
            continue
        ahead = [r for r in others if r[key] != mine[key] and best(r[key], mine[key]) == r[key]]
        if ahead:
            ahead.sort(key=lambda row: row[key], reverse=best is max)
            named = ", ".join(f"{row['contender']} ({_figure(key, row[key])})" for row in ahead)
            lines.append(f"- {title} (ours {_figure(key, mine[key])}): {named}")
    return lines


def _section(name: str, rows: list[Row]) -> str:
    first = rows[-1]
    ordered = sorted(rows, key=lambda row: row["ms_per_image"])
    lines = [
        f"## {name}\n",
        f"{first['minutes']:g} minutes of training each, fold {first['fold']} held out. "
        f"{first['cores']} cores, {first['threads']} threads, device {first['device']}, "
        f"torch {first['torch']}.\n",
        "| " + " | ".join(COLUMNS.values()) + " |",
        "| --- |" + " ---: |" * (len(COLUMNS) - 1),
        *(_line(row) for row in ordered),
    ]
    ahead = losses_to(rows)
    if any(row["contender"] == OURS for row in rows):
        lines += ["\nWhat wins where ours does not:\n", *(ahead or ["- nothing"])]
    lines += ["\nWhat differs:\n", *(f"- {r['contender']}: {r['note']}" for r in rows if r["note"])]
    lines.append(
        "- all: the bundle's transforms, augmentation and batch size, AdamW, warm-up and cosine "
        "over the time, averaged weights, the whole image in one window; ms an image is the median "
        "of interleaved runs from the normalised image to mean and label maps, in the fastest of "
        "four forms; a ratio compares with the DynUNet of its own call. Cases fewer than those of "
        "the others mean that the time to judge was up: such scores rest on the same first cases "
        "but are not comparable to the last digit."
    )
    lines += _time_to_dice(rows)
    commands = dict.fromkeys(row["command"] for row in rows)
    lines += ["\n```console", *commands, "```\n"]
    return "\n".join(lines)


def seconds_to(dice: float, curve: Sequence[Sequence[float]]) -> float | None:
    """Seconds of training after which a learning curve first reaches a Dice, None if never.

    Between two looks the curve counts as straight; what the first look shows is taken to have
    grown from nothing.

    Example:
        >>> seconds_to(0.75, [(10.0, 0.7), (20.0, 0.8)])
        15.0
    """
    before = (0.0, 0.0)
    for seconds, reached in curve:
        if reached >= dice:
            part = (dice - before[1]) / (reached - before[1])
            return round(before[0] + part * (seconds - before[0]), 1)
        before = (seconds, reached)
    return None


def _time_to_dice(rows: Sequence[Row]) -> list[str]:
    """Seconds to some Dice that the reference reached, and their ratio to its own."""
    curves = {row["contender"]: row["curve"] for row in rows if row.get("curve")}
    if REFERENCE not in curves:
        return []
    best = max(dice for _, dice in curves[REFERENCE])
    goals = [math.floor(100.0 * best) / 100.0 - step / 100.0 for step in (2, 1, 0)]
    lines = [
        "\nSeconds of training to a Dice, and how many times DynUNet's:\n",
        "| contender | " + " | ".join(f"{goal:.2f}" for goal in goals) + " |",
        "| --- |" + " ---: |" * len(goals),
    ]
    reference = [seconds_to(goal, curves[REFERENCE]) for goal in goals]
    for name, curve in curves.items():
        cells = []
        for goal, theirs in zip(goals, reference, strict=True):
            mine = seconds_to(goal, curve)
            cells.append("–" if mine is None or not theirs else f"{mine:.0f} ({mine / theirs:.2f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _line(row: Row) -> str:
    return "| " + " | ".join(_figure(key, row[key]) for key in COLUMNS) + " |"


def _figure(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if key in ("dice", "ged2", "hm_iou", "ece"):
        return f"{value:.3f}"
    if key == "macs":
        return f"{value / 1e9:,.4g}"
    if key in ("ms_per_image", "ratio_to_dynunet"):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    if key == "parameters":
        return f"{value / 1e6:.2f} M"
    return f"{value:,.0f}" if isinstance(value, float | int) else str(value)


def _published() -> str:
    lines = [
        "## As published\n",
        "Not run here: what their usual configuration asks of an image.\n",
        "| system | image | passes | GMAC | source |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for one in PUBLISHED:
        size = " × ".join(map(str, one.size))
        macs = f"{one.macs / 1e9:,.0f}"
        lines.append(f"| {one.name} | {size} | {one.evaluations:,} | {macs} | {one.source} |")
    return "\n".join(lines) + "\n"
