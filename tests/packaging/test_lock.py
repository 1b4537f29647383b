"""``constraints.txt``, which continuous integration installs, has what pyproject.toml asks for."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ASKED = {
    line
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
    if not line.startswith("medsegdiff[")
}
LOCKED = {
    canonicalize_name(name): Version(version)
    for name, _, version in (
        line.partition("==")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    )
}


@pytest.mark.parametrize("line", sorted(ASKED))
def test_the_lock_has_each_dependency_in_its_range(line: str) -> None:
    asked = Requirement(line)
    assert LOCKED[canonicalize_name(asked.name)] in asked.specifier


def test_the_lock_has_no_build_of_one_machine() -> None:
    assert not [name for name, version in LOCKED.items() if version.local]
