"""The pages name only folders, files and functions of the code that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import medsegdiff

PACKAGE = Path(medsegdiff.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "bundles").glob("*/docs/*.md")),
]
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    text = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


WALK = [
    (folder.strip("`"), file, name)
    for number, folder, functions, _ in (
        row for row in rows("A walk through the code") if row[0].isdigit()
    )
    for file, name in re.findall(r"`(\w+\.py): ([\w.]+)`", functions)
]


def names_in(path: Path) -> set[str]:
    """Functions, classes, and methods as ``Class.method``."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return found


@pytest.mark.parametrize(("folder", "file", "name"), WALK)
def test_the_walk_names_functions_that_exist(folder: str, file: str, name: str) -> None:
    assert name in names_in(PACKAGE / folder / file)


def test_the_walk_goes_from_the_command_line_to_the_report() -> None:
    folders = list(dict.fromkeys(folder for folder, _, _ in WALK))
    assert len(folders) == 14 and (folders[0], folders[-1]) == ("cli", "evaluation")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w/]+(?:\.\w+|/))`", PAGE))))
def test_files_and_folders_of_the_page_exist(path: str) -> None:
    places = (PACKAGE / path, ROOT / path, ROOT / "benchmarks" / path)
    of_bundles = any((ROOT / "bundles").glob(f"*/{path}"))
    assert of_bundles or any(place.exists() for place in places) or any(PACKAGE.rglob(path))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_python_files_that_a_page_names_exist(page: Path) -> None:
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", page.read_text(encoding="utf-8")))
    trees = (PACKAGE, ROOT, ROOT / "benchmarks")
    assert {file for file in named if not any((tree / file).is_file() for tree in trees)} == set()


def test_classes_and_functions_in_its_text_exist() -> None:
    """Those in backquotes that are written as a class, or as ``@decorator``."""
    code = "".join(p.read_text(encoding="utf-8") for p in PACKAGE.rglob("*.py"))
    named = set(re.findall(r"`@?((?:[A-Z][a-z]+){2,}|\w+_of)`", PAGE))
    assert len(named) > 5
    assert {name for name in named if not re.search(rf"(class|def) {name}\b", code)} == set()
