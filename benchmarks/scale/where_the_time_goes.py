"""Which part of an ensemble takes how long? One image after the other, its parts by the clock.

python -m benchmarks.scale.where_the_time_goes --data hippocampus_mr
"""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.contenders.ours import medsegdiff
from benchmarks.harness.contender import Contender
from benchmarks.harness.data import load_study
from medsegdiff.bundle import load_bundle
from medsegdiff.core import write_json, write_text
from medsegdiff.networks import Denoiser, ImageEncoder
from medsegdiff.segmentation import MemberNoise, RunningMoments, sliding_window

NAME = "where_the_time_goes"
PARTS: dict[str, tuple[Any, str]] = {
    "encoder, once an image": (ImageEncoder, "forward"),
    "condition made ready, once an image": (Denoiser, "prepare"),
    "noise of all members": (MemberNoise, "start"),
    "denoiser, all members": (Denoiser, "forward"),
    "masks at the image's size": (Denoiser, "refine"),
    "mean and variance": (RunningMoments, "update"),
    "label maps": (sliding_window, "most_probable"),
}
"""What it is -> where its function is, and the function's name."""
REST = "rest: softmax, x_0, copies"


@contextmanager
def timed(device: torch.device) -> Iterator[dict[str, float]]:
    """Seconds spent in each part, while the context lasts."""
    seconds: dict[str, float] = defaultdict(float)

    def wrapped(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            started = _now(device)
            result = function(*args, **kwargs)
            seconds[part] += _now(device) - started
            return result

        return run

    with ExitStack() as stack:
        for part, (place, name) in PARTS.items():
            replacement = wrapped(part, getattr(place, name))
            stack.enter_context(mock.patch.object(place, name, replacement))
        yield seconds


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def measure(contender: Contender, images: Sequence[torch.Tensor], rounds: int) -> dict[str, float]:
    """Median milliseconds of each part, the rest and the whole, over images and rounds."""
    device = next(contender.networks[0].parameters()).device
    contender.work(images[0])  # sets up the kernels
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for image in images:
            with timed(device) as seconds:
                started = _now(device)
                contender.work(image.to(device))
                whole = _now(device) - started
            for part in PARTS:
                found[part].append(seconds[part])
            found[REST].append(whole - sum(seconds.values()))
            found["whole"].append(whole)
    return {part: 1000.0 * statistics.median(each) for part, each in found.items()}


def page(table: dict[int, dict[str, float]], command: str, device: str) -> str:
    """A column for each number of steps, milliseconds and shares."""
    steps = list(table)
    lines = [
        "# Where the time goes\n",
        f"Median milliseconds an image of the shipped network, 16 members unless the command says "
        f"otherwise. {os.cpu_count()} cores, device {device}, torch {torch.__version__}.\n",
        "| part | " + " | ".join(f"{n} step{'s' * (n > 1)}" for n in steps) + " |",
        "| --- |" + " ---: |" * len(steps),
    ]
    for part in table[steps[0]]:
        cells = [f"{table[n][part]:.1f} ({table[n][part] / table[n]['whole']:.0%})" for n in steps]
        lines.append(f"| {part} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "\n```console", command, "```\n"])


def main(words: Sequence[str] | None = None, changes: dict[str, Any] | None = None) -> None:
    """The command; ``changes`` replace values of the bundle's ``train`` configuration."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.scale.{NAME}")
    add = parser.add_argument
    add("--data", required=True, help="dataset.json, its folder, or a name in data_manifests/")
    add("--bundle", default="hippocampus_mr")
    add("--members", type=int, default=16)
    add("--steps", default="1,2,4", help="a column for each")
    add("--images", type=int, default=6, help="of the held-out fold")
    add("--rounds", type=int, default=5)
    add("--output", type=Path, default=Path("benchmarks/results"), help="folder of the table")
    words = sys.argv[1:] if words is None else words
    arguments = parser.parse_args(words)
    bundle = load_bundle(arguments.bundle)
    study = load_study(arguments.data, bundle, 0, changes=dict(changes or {}))
    images = [item["image"] for item in study.held_out[: arguments.images]]
    device = bundle.parser("train").get_parsed_content("device")
    table: dict[int, dict[str, float]] = {}
    for steps in (int(word) for word in arguments.steps.split(",")):
        contender = medsegdiff(study, bundle, {"members": arguments.members, "steps": steps})
        contender.networks = [network.to(device).eval() for network in contender.networks]
        table[steps] = measure(contender, images, arguments.rounds)
    command = f"{parser.prog} {shlex.join(words)}"
    write_json(arguments.output / f"{NAME}.json", {"milliseconds": table, "command": command})
    write_text(arguments.output / f"{NAME}.md", page(table, command, device.type))


if __name__ == "__main__":
    main()
