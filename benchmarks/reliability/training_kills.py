"""Is anything lost when a training is killed? Kills a tiny one at random moments, and resumes it.

python -m benchmarks.reliability.training_kills --kills 100
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.reliability.killing import Tally, ended, forked, killed_until_it_ends
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
    ended(forked(lambda: train_once(data, folder / "timed", epochs)))
    took = time.monotonic() - started
    moments, tally, run = random.Random(seed), Tally(), folder / "run"

    def do() -> None:
        train_once(data, run, epochs)

    while tally.kills < kills and time.monotonic() - started < 60 * minutes:
        before = tally.kills
        killed_until_it_ends(
            do, took, moments, tally, lambda: epochs_done(run), lambda: is_intact(run)
        )
        if not (run / "final.pt").exists():
            raise SystemExit(f"the training in {run} ended without final.pt")
        if tally.kills > before:  # else it ended before its moment came
            tally.runs += 1
            tally.equal += all((run / n).read_bytes() == (whole / n).read_bytes() for n in WEIGHTS)
        shutil.rmtree(run)
        print(f"{tally.kills} kills, {tally.lost} lost, {tally.equal} of {tally.runs} equal")
    return tally


WEIGHTS = ("best.pt", "final.pt")


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


def train_once(data: Path, run: Path, epochs: int) -> None:
    """Train, or go on with a run that has begun."""
    tracking = f"sqlite:///{run.parent}/mlruns.db"
    overrides = {**TINY, "train#trainer#max_epochs": epochs, "tracking_uri": tracking}
    begun = (run / "config.yaml").exists()
    train(BUNDLE, data, run, resume=begun, device="cpu", overrides=overrides)


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
