"""The harness knows no experiment, experiments not each other, and documented commands exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
MODULES = sorted(p.relative_to(BENCHMARKS) for p in BENCHMARKS.glob("*/*.py"))
SHARED = {"harness": set[str](), "contenders": {"harness"}}
"""What the folders that all experiments use may import."""

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "bundles").glob("*/docs/*.md")),
    *sorted((BENCHMARKS / "results").glob("*.md")),
    *sorted(BENCHMARKS.glob("*/*.py")),
    ROOT / "Makefile",
]


def imported_folders(module: Path) -> set[str]:
    """The folders of ``benchmarks`` that a module imports from."""
    found = set()
    for node in ast.walk(ast.parse((BENCHMARKS / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "benchmarks":
            found |= {alias.name for alias in node.names}
    return found


def commands(page: Path) -> Iterator[str]:
    """Each ``python -m benchmarks...`` of a page, with its options; an f-string's is left out."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    yield from re.findall(r"python -m (benchmarks\.[\w.]+[^`\"\n]*)", text)


SHOWN = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}: {line}")
    for page in PAGES
    for line in commands(page)
    if "{" not in line
]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_experiments_rest_on_the_harness_and_not_the_reverse(module: Path) -> None:
    folder = module.parts[0]
    allowed = SHARED.get(folder, set(SHARED)) | {folder}
    assert imported_folders(module) <= allowed


@pytest.mark.parametrize("line", SHOWN)
def test_a_documented_command_names_a_program_and_its_options(line: str) -> None:
    module, *words = shlex.split(line.replace("$(", "").replace(")", ""))
    path = ROOT / module.rstrip(".").replace(".", "/")
    file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert '__name__ == "__main__"' in file.read_text(encoding="utf-8")
    source = "".join(p.read_text(encoding="utf-8") for p in file.parent.glob("*.py"))
    named = (word.partition("=")[0] for word in words if word.startswith("--"))
    options = {word.replace("--no-", "--", 1) for word in named}
    assert {option for option in options if f'"{option}"' not in source} == set()


def test_there_are_commands_to_look_at() -> None:
    assert len(SHOWN) > 20
