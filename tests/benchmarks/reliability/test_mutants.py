"""A sample of mutants is drawn by package, once, and counted as it says."""

from __future__ import annotations

import subprocess
from collections import Counter
from configparser import ConfigParser
from pathlib import Path

import pytest

from benchmarks.reliability.mutants import (
    PACKAGES,
    configuration,
    package_of,
    prepare,
    sampled,
    tally,
)

NAMES = [
    f"medsegdiff.{package}.part.x_function__mutmut_{number}"
    for package, count in (("metrics", 50), ("writers", 30), ("diffusion", 20))
    for number in range(count)
]


def test_packages_are_drawn_in_proportion_and_none_twice() -> None:
    drawn = sampled(NAMES, 10, seed=0)
    assert Counter(map(package_of, drawn)) == {"metrics": 5, "writers": 3, "diffusion": 2}
    assert len(set(drawn)) == 10 and set(drawn) <= set(NAMES)
    assert drawn == sampled(NAMES[::-1], 10, seed=0) != sampled(NAMES, 10, seed=1)


@pytest.mark.parametrize("n", [1, 7, 33, 99, 100])
def test_as_many_are_drawn_as_are_wanted(n: int) -> None:
    counts = Counter(map(package_of, sampled(NAMES, n, seed=0)))
    assert counts.total() == n
    for package, share in (("metrics", 0.5), ("writers", 0.3), ("diffusion", 0.2)):
        assert abs(counts[package] - n * share) < 1.0


def test_a_second_sample_has_none_of_the_first() -> None:
    first = sampled(NAMES, 40, seed=0)
    second = sampled(NAMES, 40, seed=1, without=first)
    assert not set(first) & set(second) and len(second) == 40
    with pytest.raises(ValueError, match=r"n must be at most 60\. Got 61\."):
        sampled(NAMES, 61, seed=1, without=first)


def test_what_no_test_reaches_was_not_noticed() -> None:
    verdicts = dict.fromkeys(NAMES[:88], "killed") | dict.fromkeys(NAMES[88:90], "timeout")
    verdicts |= dict(zip(NAMES[90:], ["survived", "no tests"] * 5, strict=True))
    found = tally(verdicts)
    assert (found["mutants"], found["mutants_killed"], found["mutation_score"]) == (100, 90, 0.9)
    # Wilson's formula, written out
    p, n, z = 0.9, 100, 1.959964
    middle, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    expected = [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]
    assert found["mutation_interval"] == pytest.approx(expected, abs=1e-4)
    assert found["mutants_by_package"] == {
        "metrics": {"mutants": 50, "killed": 50},
        "writers": {"mutants": 30, "killed": 30},
        "diffusion": {"mutants": 20, "killed": 10},
    }


def test_the_configuration_names_packages_and_their_tests() -> None:
    parser = ConfigParser()
    parser.read_string(configuration(["README.md", "docs"]))
    found = {key: value.split("\n")[1:] for key, value in parser["mutmut"].items()}
    assert found["source_paths"] == ["medsegdiff"] and found["also_copy"] == ["README.md", "docs"]
    assert found["only_mutate"] == [f"medsegdiff/{package}/*" for package in PACKAGES]
    root = Path(__file__).parents[3]
    for folder in found["pytest_add_cli_args_test_selection"]:
        assert (root / folder).is_dir()


def test_a_copy_follows_what_git_knows(tmp_path: Path) -> None:
    checkout, work = tmp_path / "checkout", tmp_path / "work"
    (checkout / "tests").mkdir(parents=True)
    (checkout / "tests" / "test_a.py").write_text("first")
    (checkout / "README.md").write_text("read")
    (checkout / ".gitignore").write_text("left.txt")
    (checkout / "left.txt").write_text("left")
    subprocess.run(["git", "init", "-q"], cwd=checkout, check=True)
    prepare(checkout, work)
    assert (work / "tests" / "test_a.py").read_text() == "first"
    assert not (work / "left.txt").exists() and "README.md" in (work / "setup.cfg").read_text()
    before = (work / "README.md").stat().st_mtime_ns
    (checkout / "tests" / "test_a.py").write_text("other")
    prepare(checkout, work)
    assert (work / "tests" / "test_a.py").read_text() == "other"
    assert (work / "README.md").stat().st_mtime_ns == before  # mutmut makes its mutants again
