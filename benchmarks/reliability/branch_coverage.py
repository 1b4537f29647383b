"""How much of each package do the tests run? Adds up what ``coverage run`` has left.

coverage run -m pytest --doctest-modules medsegdiff tests
python -m benchmarks.reliability.branch_coverage
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medsegdiff.core import read_json, write_json

RESULTS = Path("benchmarks/results/reliability.json")
PACKAGE = "medsegdiff"


def main(arguments: Sequence[str] | None = None) -> None:
    """Join the files of all processes, and write the shares into the file of results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    figures = shares_by_package(measured()["files"])
    print(json.dumps(figures, indent=2))
    write_json(options.output, {**(read_json(options.output) or {}), **figures})


def measured() -> dict[str, Any]:
    """The report of coverage.py on all processes of the last run."""
    import coverage  # the tests of this file need none

    found = coverage.Coverage()
    found.combine(keep=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "coverage.json"
        found.json_report(outfile=str(path))
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return report


def shares_by_package(files: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Percentages of each package, and of all: of branches alone, and of statements and branches.

    A branch is a pair of a line that can go on in several ways and one of these.

    Args:
        files: Path of each file -> its part of coverage.py's report, with its ``summary``.

    >>> one = {"covered_branches": 3, "num_branches": 4, "covered_lines": 9, "num_statements": 10}
    >>> shares_by_package({"medsegdiff/core/errors.py": {"summary": one}})["branch_coverage"]
    {'core': 75.0, 'total': 75.0}
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for path, report in files.items():
        parts = Path(path).parts
        inside = parts[parts.index(PACKAGE) + 1 :]
        for package in ({inside[0]} if len(inside) > 1 else set()) | {"total"}:
            counts[package].update({k: v for k, v in report["summary"].items() if "_" in k})
    shares: dict[str, dict[str, float]] = {"branch_coverage": {}, "statement_branch_coverage": {}}
    for package in sorted(counts, key=lambda name: (name == "total", name)):
        count = counts[package]
        branches, all_branches = count["covered_branches"], count["num_branches"]
        both, all_both = count["covered_lines"] + branches, count["num_statements"] + all_branches
        shares["branch_coverage"][package] = _percent(branches, all_branches)
        shares["statement_branch_coverage"][package] = _percent(both, all_both)
    return shares


def _percent(part: int, whole: int) -> float:
    return round(100.0 * part / whole, 1) if whole else 100.0


if __name__ == "__main__":
    main()
