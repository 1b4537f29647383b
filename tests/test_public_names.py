"""Bundles, documentation and benchmarks use only names that a subpackage gives to others."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import medsegdiff

ROOT = Path(__file__).resolve().parents[1]
SUBPACKAGES = sorted(p.parent.name for p in (ROOT / "medsegdiff").glob("*/__init__.pyi"))
INTERNAL = {
    *("medsegdiff.cli.common.parse_overrides", "medsegdiff.cli.main.main"),
    "medsegdiff.segmentation.sliding_window",
}
"""What no library user needs: the command line, which benchmarks run as a program, and a module
whose parts a benchmark times."""


def spelled(path: Path) -> Iterator[str]:
    """The dotted names of this package in a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medsegdiff"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        return
    yield from re.findall(r"medsegdiff(?:\.[A-Za-z_]\w*)+", text)
    for module, name in re.findall(r"from (medsegdiff[\w.]*) import (\w+)", text):
        yield f"{module}.{name}"


def is_public(name: str) -> bool:
    """Whether it is the package, a subpackage, or what one of them names."""
    _, *parts = name.split(".")
    if not parts or (len(parts) == 1 and (parts[0] in dir(medsegdiff) or parts[0][0] == "_")):
        return True
    if parts[0] not in SUBPACKAGES or len(parts) > 2:
        return False
    return len(parts) == 1 or parts[1] in dir(importlib.import_module(f"medsegdiff.{parts[0]}"))


FILES = [
    *sorted((ROOT / "bundles").glob("*/configs/*.yaml")),
    *sorted((ROOT / "benchmarks").rglob("*.py")),
    *(ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))),
    *sorted((ROOT / "bundles").glob("*/docs/*.md")),
]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_only_public_names_are_used(path: Path) -> None:
    wrong = {name for name in spelled(path) if not is_public(name)} - INTERNAL
    assert not wrong


@pytest.mark.parametrize("package", SUBPACKAGES)
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(f"medsegdiff.{package}")
    assert dir(module)
    for name in dir(module):
        assert getattr(module, name) is not None, name


def test_an_internal_name_would_be_found(tmp_path: Path) -> None:
    text = "$medsegdiff.data.manifest.load_manifest(@x) $medsegdiff.data.load_manifest(@x)"
    (tmp_path / "a.yaml").write_text(text)
    found = [name for name in spelled(tmp_path / "a.yaml") if not is_public(name)]
    assert found == ["medsegdiff.data.manifest.load_manifest"]
