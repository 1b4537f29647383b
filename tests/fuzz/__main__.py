"""A long run over all kinds of inputs, or some: seeds, counts, and what was found.

python -m tests.fuzz --inputs 10000 --minutes 25
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from medsegdiff.core.atomic_files import read_json, write_json
from tests.fuzz.isolation import try_inputs
from tests.fuzz.targets import TARGETS


def main() -> None:
    """Try inputs of each kind in turn, print what was found, and add the counts to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10000, help="of all kinds together, at most")
    parser.add_argument("--minutes", type=float, default=25.0, help="at most")
    parser.add_argument("--seed", type=int, default=1_000_000, help="of the first input of a kind")
    parser.add_argument("--kinds", default=",".join(TARGETS), help="with commas between")
    parser.add_argument("--output", type=Path, help="file of results (JSON) to enter the counts in")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    share = options.inputs / sum(TARGETS[kind][1] for kind in kinds)
    total, by_kind, started = Counter[str](), {}, time.monotonic()
    for number, kind in enumerate(kinds, start=1):
        prepare, count = TARGETS[kind]
        seeds = range(options.seed, options.seed + max(1, round(count * share)))
        with tempfile.TemporaryDirectory() as folder:
            until = started + 60 * options.minutes * number / len(kinds)
            tally = try_inputs(prepare(Path(folder)), seeds, until=until)
        for seed, text in tally.findings:
            print(f"{kind}, seed {seed}: {text}", file=sys.stderr)
        by_kind[kind] = sum(tally.counts.values())
        total += tally.counts
        print(kind, dict(tally.counts), flush=True)
    figures = {
        "fuzzed_files": sum(by_kind.values()),
        "fuzzed_by_kind": by_kind,
        "fuzzed_accepted": total["accepted"],
        "crashes": total["crashes"] + total["exceptions"],
        "hangs": total["hangs"],
        "silent_changes": total["silent_changes"],
    }
    print(json.dumps(figures))
    if options.output:
        write_json(options.output, {**(read_json(options.output) or {}), **figures})
    sys.exit(bool(figures["crashes"] or figures["hangs"] or figures["silent_changes"]))


if __name__ == "__main__":
    main()
