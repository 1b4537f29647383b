"""Do the tests notice a change of the code? Changes it at random places, and runs them on each.

python -m benchmarks.reliability.mutants --work runs/mutants --mutants 300 --seed 1

It needs ``mutmut``, which makes the mutants (``pip install mutmut``; no extra of the package).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from medsegdiff.core import read_json, write_json

PACKAGES = ("diffusion", "metrics", "evaluation", "calibration", "writers", "segmentation")
RESULTS = Path("benchmarks/results/reliability.json")
KILLED = {"killed", "timeout"}
"""Verdicts of mutmut on a mutant that the tests noticed."""
SMALLEST = "medsegdiff.metrics.means.*"
"""Mutants of one small file: mutmut makes all mutants before it runs these."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the mutants, draw some, run them, and write the figures into the file of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for mutants; is kept")
    parser.add_argument("--mutants", type=int, default=300, help="that are drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--processes", type=int, default=2, help="at a time")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if find_spec("mutmut") is None:
        raise SystemExit("mutmut is not installed. Run: pip install mutmut")
    prepare(Path.cwd(), options.work)
    mutmut(options.work, options.processes, [SMALLEST])
    drawn = options.work / "drawn"
    earlier = [name for path in drawn.glob("*.json") for name in read_json(path) or {}]
    names = sampled(verdicts(options.work), options.mutants, options.seed, earlier)
    mutmut(options.work, options.processes, names)
    found = verdicts(options.work)
    write_json(drawn / f"seed_{options.seed}.json", {name: found[name] for name in names})
    figures = tally({name: found[name] for name in names})
    print(json.dumps(figures))
    write_json(options.output, {**(read_json(options.output) or {}), **figures})


def prepare(checkout: Path, work: Path) -> None:
    """Copy the files that git knows to a folder of their own, with a configuration of mutmut.

    Args:
        checkout: Folder of the repository.
        work: Folder of the copy; what has not changed since an earlier call is left as it is.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=checkout,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, target = checkout / name, work / name
        if source.is_file() and not is_copied(source, target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    top = {path.name for path in work.iterdir()} - {"medsegdiff", "tests", "mutants", "drawn"}
    (work / "setup.cfg").write_text(configuration(sorted(top)), encoding="utf-8")


def is_copied(source: Path, target: Path) -> bool:
    """Whether a copy has the content of its source."""
    return target.is_file() and target.read_bytes() == source.read_bytes()


def configuration(beside: Iterable[str]) -> str:
    """The text of mutmut's ``setup.cfg``.

    Args:
        beside: Names of files and folders that the tests need, beside package and tests.
    """
    entries = {
        "source_paths": ["medsegdiff"],
        "only_mutate": [f"medsegdiff/{package}/*" for package in PACKAGES],
        "also_copy": beside,
        "pytest_add_cli_args": ["-m", "not long"],
        "pytest_add_cli_args_test_selection": [f"tests/{package}" for package in PACKAGES],
    }
    rows = [f"{key} =\n" + "".join(f"    {one}\n" for one in ones) for key, ones in entries.items()]
    # a busy machine must not count as a kill
    rows.append("timeout_multiplier = 3\ntimeout_constant = 30\ntrack_dependencies = false\n")
    return "[mutmut]\n" + "".join(rows)


def mutmut(work: Path, processes: int, names: Sequence[str]) -> None:
    """Run mutants by their names."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(processes), *names]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if subprocess.run(command, cwd=work, env=environment).returncode:
        raise SystemExit("mutmut failed: its output above says why")


def verdicts(work: Path) -> dict[str, str]:
    """Name of each mutant -> mutmut's verdict, ``not checked`` if it was not run."""
    command = [sys.executable, "-m", "mutmut", "results", "--all", "true"]
    told = subprocess.run(command, cwd=work, check=True, capture_output=True, text=True).stdout
    rows = (line.strip().rpartition(": ") for line in told.splitlines() if "__mutmut_" in line)
    return {name: verdict for name, _, verdict in rows}


def package_of(name: str) -> str:
    """The package of a mutant.

    >>> package_of("medsegdiff.metrics.means.x_mean_defined__mutmut_1")
    'metrics'
    """
    return name.split(".")[1]


def sampled(names: Iterable[str], n: int, seed: int, without: Iterable[str] = ()) -> list[str]:
    """Mutants drawn at random, from each package in proportion to its number of mutants.

    Args:
        names: Names of all mutants.
        n: Number of mutants to draw.
        seed: Seed of the draw.
        without: Names of mutants that are not drawn, such as those of an earlier sample.

    Raises:
        ValueError: there are fewer mutants than are wanted.
    """
    names, drawn = sorted(names), random.Random(seed)
    left = set(names) - set(without)
    if n > len(left):
        raise ValueError(f"n must be at most {len(left)}. Got {n}.")
    strata = {
        package: [name for name in names if package_of(name) == package]
        for package in sorted({package_of(name) for name in names})
    }
    ideal = {package: n * len(own) / len(names) for package, own in strata.items()}
    counts = {package: int(share) for package, share in ideal.items()}
    by_rest = sorted(ideal, key=lambda package: counts[package] - ideal[package])
    for package in by_rest[: n - sum(counts.values())]:
        counts[package] += 1
    return [
        name
        for package, own in strata.items()
        for name in sorted(drawn.sample([one for one in own if one in left], counts[package]))
    ]


def tally(verdicts: Mapping[str, str]) -> dict[str, Any]:
    """Figures of a sample, as ``reliability.json`` has them.

    Args:
        verdicts: Name of each mutant of the sample -> mutmut's verdict. One that no test reaches
            counts as one that was not noticed.

    Returns:
        ``mutation_score``, the share that the tests noticed, with its 95 % interval (Wilson);
        ``mutants`` and ``mutants_killed``; and the score of each package.
    """
    noticed = {name: verdict in KILLED for name, verdict in verdicts.items()}
    by_package: dict[str, list[bool]] = {}
    for name, killed in noticed.items():
        by_package.setdefault(package_of(name), []).append(killed)
    interval = binomtest(sum(noticed.values()), len(noticed)).proportion_ci(method="wilson")
    return {
        "mutation_score": round(sum(noticed.values()) / len(noticed), 4),
        "mutation_interval": [round(float(interval.low), 4), round(float(interval.high), 4)],
        "mutants": len(noticed),
        "mutants_killed": sum(noticed.values()),
        "mutants_by_package": {
            package: {"mutants": len(own), "killed": sum(own)}
            for package, own in by_package.items()
        },
    }


if __name__ == "__main__":
    main()
