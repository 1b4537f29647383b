"""Cohorts on Ray: is a second worker worth it, and is a case lost with a worker that is killed?

python -m benchmarks.scale.cohort_on_ray --data hippocampus_mr=FOLDER --cases 48

Each worker has one core and one thread. The image files are those of a data set; the time counts
from the first to the last case that ends, without the start of the workers, in which none ends.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff.cases import segment
from medsegdiff.core import InputError, read_json, write_json
from medsegdiff.data import load_manifest

RESULTS = Path("benchmarks/results/scale.json")
BUNDLE = "hippocampus_mr"
COHORT = 100_000
STAGES = ("load", "encode", "sample", "write")
LARGE = Path("benchmarks/results/large_volume.json")


def main(words: Sequence[str] | None = None) -> None:
    """Segment the cases with one worker, with two, and with two of which one is killed."""
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="data set, as for medsegdiff check")
    parser.add_argument("--cases", type=int, default=48)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(words)
    manifest = load_manifest(options.data)
    images = [case.images[0] for case in manifest.cases[: options.cases]]
    with tempfile.TemporaryDirectory() as name:
        one, two, killed = (
            _cohort(images, Path(name) / way, *how)
            for way, how in {"one": (1, False), "two": (2, False), "killed": (2, True)}.items()
        )
    figures = {
        "ray_cases": len(images),
        "ray_cores": len(os.sched_getaffinity(0)),
        "cases_per_hour": {"one_worker": one["per_hour"], "two_workers": two["per_hour"]},
        "ray_speedup": round(two["per_hour"] / one["per_hour"], 3),
        "ray_killed_workers": killed["killed"],
        "ray_lost": len(images) - killed["written"],
        "cohort_plan": planned(read_json(LARGE)["rows"]),
    }
    print(json.dumps(figures, indent=1))
    write_json(options.output, {**(read_json(options.output) or {}), **figures})


def _cohort(images: Sequence[Path], output: Path, workers: int, kill: bool) -> dict[str, Any]:
    """One way of doing the cohort: cases an hour, cases written, workers killed."""
    ends: list[float] = []
    killed: list[int] = []

    def tell(case: str, error: InputError | None) -> None:
        ends.append(time.monotonic())
        if kill and len(ends) == len(images) // 3:
            killed.append(_workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:workers])  # Ray takes the cores that it may use
    try:
        segment(images, BUNDLE, output, engine="ray", workers=workers, tell=tell, device="cpu")
    finally:
        os.sched_setaffinity(0, cores)
    return {
        "per_hour": round(3600.0 * (len(ends) - 1) / (ends[-1] - ends[0]), 1),
        "written": len(list(output.glob("*/*_run.json"))),
        "killed": len(killed),
    }


def _workers() -> list[int]:
    found = subprocess.run(["pgrep", "-f", "ray::_Worker"], capture_output=True, text=True)
    return [int(word) for word in found.stdout.split()]


def planned(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Core hours of a cohort of chest CTs by stage, from one of 300 slices; the longest stage.

    Args:
        rows: Rows of ``large_volume.json``: a tiny network, 100 of 139 windows not empty.
    """
    row = next(one for one in rows if one["shape"][2] == 300)
    hours = {stage: round(COHORT * row["seconds"][stage] / 3600.0) for stage in STAGES}
    bottleneck = max(hours, key=lambda stage: hours[stage])
    return {
        "cases": COHORT,
        "shape": row["shape"],
        "process_hours": hours,
        "bottleneck": bottleneck,
        "days_on_100_processes": round(sum(hours.values()) / 100 / 24, 1),
    }


if __name__ == "__main__":
    main()
