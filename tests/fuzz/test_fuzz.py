"""No input crashes, hangs, is read wrongly, or gives another error than ours.

A long run: ``make fuzz INPUTS=10000``.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from medsegdiff.core.errors import InputError
from tests.fuzz.isolation import try_inputs
from tests.fuzz.mutations import damaged, damaged_json
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_inputs(name: str, tmp_path: Path) -> None:
    prepare, count = TARGETS[name]
    tally = try_inputs(prepare(tmp_path), range(count))
    assert tally.findings == []
    assert tally.counts["accepted"] > 0 and tally.counts["refused"] > 0
    assert sum(tally.counts.values()) == count


def test_each_kind_of_fault_would_be_found() -> None:
    def attempt(rng: np.random.Generator, folder: Path) -> bool:
        match int(rng.bit_generator.seed_seq.entropy):  # type: ignore[attr-defined]
            case 1:
                raise InputError("a", "b", "c")
            case 2:
                raise KeyError("not ours")
            case 3:
                raise AssertionError
            case 4:
                os.kill(os.getpid(), signal.SIGKILL)
            case 5:
                time.sleep(60)
            case 6:
                np.ones(2**34, np.uint8)
        return True

    tally = try_inputs(attempt, range(8), limit=1.0)
    assert [seed for seed, _ in tally.findings] == [2, 3, 4, 5, 6]
    assert tally.counts == {
        **dict.fromkeys(("silent_changes", "crashes", "hangs", "refused"), 1),
        "exceptions": 2,
        "accepted": 2,
    }


def test_damage_follows_from_the_seed_and_leaves_the_original_alone() -> None:
    content, nested = bytes(range(256)), {"a": [1, {"b": None}], "c": "d"}
    changed = 0
    for seed in range(50):
        first, second = (damaged(content, np.random.default_rng(seed)) for _ in range(2))
        assert first == second
        changed += first != content
        damaged_json(nested, np.random.default_rng(seed))
    assert changed > 40 and nested == {"a": [1, {"b": None}], "c": "d"}
