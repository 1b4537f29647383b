"""Is anything lost when a training is killed? Kills a tiny one at random moments, and resumes it.

python -m benchmarks.reliability.training_kills --kills 100
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medsegdiff.bundle import load_bundle
from medsegdiff.core import InputError, read_json, write_json
from medsegdiff.phantoms import write_cohort
from medsegdiff.training import newest_that_loads, train

BUNDLE = "hippocampus_mr"
RESULTS = Path("benchmarks/results/reliability.json")
TINY: dict[str, Any] = {
    "network_def#encoder#channels": [8, 8, 8, 16],
    "network_def#denoiser#channels": [8, 8, 16],
    "patch_size": [16, 16, 16],
    "val_interval": 1,
    "validate#inferer#members": 2,
    "validate#inferer#steps": 1,
}
"""Settings of a training of seconds, with a validation after each epoch."""


@dataclass
class Tally:
    """Counts over all runs.

    Attributes:
        kills: Number of processes that were killed while they trained.
        lost: Number of kills after which an epoch that was done could not be read any more.
        runs: Number of runs that were killed and resumed until they ended.
        equal: Number of these whose weights are those of the run that nothing killed, byte by byte.
    """

    kills: int = 0
    lost: int = 0
    runs: int = 0
    equal: int = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill, resume, compare, and write the figures into the file of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="at least")
    parser.add_argument("--minutes", type=float, default=10.0, help="at most")
    parser.add_argument("--epochs", type=int, default=8, help="of a run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_trainings(
            Path(folder), options.kills, options.minutes, options.epochs, options.seed
        )
    figures = {
        "training_kills": tally.kills,
        "training_lost": tally.lost,
        "training_runs": tally.runs,
        "resume_bitwise": tally.equal,
    }
    print(json.dumps(figures))
    write_json(options.output, {**(read_json(options.output) or {}), **figures})


def kill_trainings(folder: Path, kills: int, minutes: float, epochs: int, seed: int) -> Tally:
    """Kill and resume runs until there are enough kills, or the time is over.

    Args:
        folder: Folder for data and runs.
        kills: Number of kills after which no further run begins.
        minutes: Number of minutes after which no further run begins.
        epochs: Number of epochs of a run.
        seed: Seed of the moments.
    """
    data, whole = cohort(folder / "data"), folder / "whole"
    train_once(data, whole, epochs)  # imports all that the children need
    started = time.monotonic()
    ended(fork_training(data, folder / "timed", epochs))
    took = time.monotonic() - started
    moments, tally, run = random.Random(seed), Tally(), folder / "run"
    while tally.kills < kills and time.monotonic() - started < 60 * minutes:
        before = tally.kills
        killed_until_it_ends(data, run, epochs, took, moments, tally)
        if tally.kills > before:  # else it ended before its moment came
            tally.runs += 1
            tally.equal += all((run / n).read_bytes() == (whole / n).read_bytes() for n in WEIGHTS)
        shutil.rmtree(run)
        print(f"{tally.kills} kills, {tally.lost} lost, {tally.equal} of {tally.runs} equal")
    return tally


WEIGHTS = ("best.pt", "final.pt")


def killed_until_it_ends(
    data: Path, run: Path, epochs: int, took: float, moments: random.Random, tally: Tally
) -> None:
    """Start a training, kill it after a random time, and resume it, until it has ended.

    Args:
        data: Path of the data's description.
        run: Folder of the run.
        epochs: Number of epochs.
        took: Seconds that the run takes when nothing kills it.
        moments: Source of the times until a kill, which are up to that, and longer while a run
            does not get on.
        tally: Counts, which grow.
    """
    span, done = took, 0
    while True:
        process = fork_training(data, run, epochs)
        if not ended(process, within=moments.uniform(0.0, 0.7 * span)):
            os.kill(process, signal.SIGKILL)
            ended(process)
            tally.kills += 1
            tally.lost += not is_intact(run)
            gained, done = epochs_done(run) > done, epochs_done(run)
            span = took if gained else 1.3 * span  # a machine that has become slow
        elif (run / "final.pt").exists():
            return
        else:
            raise SystemExit(f"the training in {run} ended without final.pt")


def is_intact(run: Path) -> bool:
    """Whether the newest checkpoint, if there is any, can be read."""
    done = epochs_done(run)
    with suppress(InputError):
        return done == 0 or newest_that_loads(run)[1]["trainer"]["epoch"] == done
    return False


def epochs_done(run: Path) -> int:
    """Number of epochs by the names of a run's checkpoints."""
    found = run.glob("last_checkpoint_epoch=*.pt")
    return max((int(path.stem.partition("=")[2]) for path in found), default=0)


def fork_training(data: Path, run: Path, epochs: int) -> int:
    """Train in a child process, which need not import anything again.

    Returns:
        Number of the process.
    """
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    try:
        train_once(data, run, epochs)
    except InputError as error:
        print(error, file=sys.stderr)
    finally:
        os._exit(0)


def train_once(data: Path, run: Path, epochs: int) -> None:
    """Train, or go on with a run that has begun."""
    tracking = f"sqlite:///{run.parent}/mlruns.db"
    overrides = {**TINY, "train#trainer#max_epochs": epochs, "tracking_uri": tracking}
    begun = (run / "config.yaml").exists()
    train(BUNDLE, data, run, resume=begun, device="cpu", overrides=overrides)


def ended(process: int, within: float | None = None) -> bool:
    """Wait for a child process.

    Args:
        process: Number of the process.
        within: Seconds to wait; None: until it has ended.

    Returns:
        Whether it has ended.
    """
    until = None if within is None else time.monotonic() + within
    while until is not None:
        if os.waitpid(process, os.WNOHANG)[0]:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.002)
    os.waitpid(process, 0)
    return True


def cohort(folder: Path) -> Path:
    """Write five generated cases with the bundle's labels; the path of their description."""
    path = write_cohort(folder, cases=5, size=16, classes=2)
    described = json.loads(path.read_text(encoding="utf-8"))
    described["labels"] = load_bundle(BUNDLE).labels
    path.write_text(json.dumps(described), encoding="utf-8")
    return path


if __name__ == "__main__":
    logging.getLogger("medsegdiff").setLevel(logging.ERROR)
    main()
