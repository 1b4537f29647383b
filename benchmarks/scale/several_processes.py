"""One training by two processes: how far is its curve from that of one?

python -m benchmarks.scale.several_processes --data hippocampus_mr=FOLDER

Each process has one thread; on a machine without GPUs they are connected by gloo. In float32 the
two differ by rounding: a sum over two images is not the sum of two sums. Adam, which divides each
gradient by its size, makes such differences grow from step to step. So the same is done in float64,
where a difference of the methods would stay and one of rounding goes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from medsegdiff.bundle import load_bundle
from medsegdiff.core import read_json, write_json
from medsegdiff.training import join_processes

RESULTS = Path("benchmarks/results/scale.json")
FIRST = 5
"""Steps in which rounding has not grown yet."""


def main(words: Sequence[str] | None = None) -> None:
    """Train by one process and by two, and write the differences of the steps' losses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="data set, as for medsegdiff check")
    parser.add_argument("--bundle", default="hippocampus_mr")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--double", action="store_true", help="compute in float64 (of --part-of)")
    parser.add_argument("--part-of", type=Path, help="folder of a run that this process is of")
    options = parser.parse_args(words)
    if options.part_of:
        _train(options)
        return
    losses, apart = _curves(options, double=False)
    _, apart_in_double = _curves(options, double=True)
    figures = {
        "ddp_steps": len(losses),
        "ddp_losses": [losses[0], losses[-1]],
        "ddp_difference_of_first_step": apart[0],
        f"ddp_max_difference_of_{FIRST}_steps": max(apart[:FIRST]),
        "ddp_max_difference": max(apart),
        "ddp_max_difference_in_float64": max(apart_in_double),
    }
    print(json.dumps(figures))
    write_json(options.output, {**(read_json(options.output) or {}), **figures})


def _curves(options: argparse.Namespace, double: bool) -> tuple[list[float], list[float]]:
    """Losses of one process, and how far those of two are from them, at each step."""
    options.double = double
    with tempfile.TemporaryDirectory() as folder:
        one, two = (_losses(number, options, Path(folder)) for number in (1, 2))
    return one, [abs(a - b) for a, b in zip(one, two, strict=True)]


def _losses(number: int, options: argparse.Namespace, folder: Path) -> list[float]:
    """Loss of each step of a training by ``number`` processes."""
    output = folder / f"by{number}"
    way = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(number)]
    command = [sys.executable, *way, "-m", "benchmarks.scale.several_processes"]
    command += ["--data", options.data, "--bundle", options.bundle, "--steps", str(options.steps)]
    command += ["--part-of", str(output), *(["--double"] if options.double else [])]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    found: list[float] = read_json(output / "losses.json")
    return found


def _train(options: argparse.Namespace) -> None:
    """What each process does; the first one writes the losses."""
    changes: dict[str, Any] = {
        "dataset_dir": options.data,
        "output_dir": str(options.part_of),
        "device": f"$torch.device({str(join_processes())!r})",
        "tracking_uri": "off",
        "precision": "float32",
    }
    parser = load_bundle(options.bundle).parser("train", changes)
    losses: list[float] = []

    def keep(engine: Engine) -> None:
        losses.append(float(engine.state.output["loss"]))
        if len(losses) == options.steps:
            engine.terminate()

    options.part_of.mkdir(parents=True, exist_ok=True)
    for index in range(len(parser["initialize"])):
        parser.get_parsed_content(f"initialize#{index}")
    if options.double:
        _compute_in_double(parser.get_parsed_content("network"))
    trainer = parser.get_parsed_content("train#trainer")
    trainer.add_event_handler(Events.ITERATION_COMPLETED, keep)
    trainer.run()
    if os.environ.get("RANK", "0") == "0":
        write_json(options.part_of / "losses.json", losses)


def _compute_in_double(network: nn.Module) -> None:
    """Make a network's parameters float64, and all that is given to it."""

    def doubled(value: Any) -> Any:
        return value.double() if torch.is_tensor(value) and value.is_floating_point() else value

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tuple(map(doubled, args)), {key: doubled(value) for key, value in kwargs.items()}

    network.double().register_forward_pre_hook(before, with_kwargs=True)


if __name__ == "__main__":
    main()
