"""Each method of the page is in the code and in a test, by the names that the page gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.test_architecture import PACKAGE, ROOT, names_in

PAGE = (ROOT / "docs" / "explanation" / "methods.md").read_text("utf-8")
METHODS = re.findall(r"^### (.+)\n(.+)\n\n((?:- .+\n?)+)", PAGE, re.M)
PLACE = re.compile(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)")


def places(line: str) -> list[tuple[str, list[str]]]:
    """Files of a line, each with the names in it."""
    return [(file, re.findall(r"`(\w+)`", names)) for file, names in PLACE.findall(line)]


@pytest.mark.parametrize(("title", "paper", "lines"), METHODS, ids=[m[0] for m in METHODS])
def test_a_method_has_paper_code_test_and_measurement(title: str, paper: str, lines: str) -> None:
    kinds = dict(re.findall(r"^- (\w+): (.+)$", lines, re.M))
    assert list(kinds) == ["Code", "Test", "Measured"]
    assert re.search(r"\b(19|20)\d\d\b", paper)
    for kind, root in (("Code", PACKAGE), ("Test", ROOT)):
        found = places(kinds[kind])
        assert found
        for file, names in found:
            assert set(names) <= names_in(root / file), file
    measured = re.findall(r"\]\(\.\./\.\./((?:benchmarks/results|bundles)/[^)]+)\)", lines)
    assert measured or kinds["Measured"] == "no"


def test_every_section_is_a_method() -> None:
    assert len(METHODS) == len(re.findall(r"^### ", PAGE, re.M)) > 40


def test_methods_that_docstrings_cite_by_name_are_on_the_page() -> None:
    """Papers with a title in quotes, which is how the code cites what it follows."""
    cited = {
        title.partition(":")[0]
        for file in PACKAGE.rglob("*.py")
        for title in re.findall(r"al\., \"([\w -]+)\"", file.read_text("utf-8"))
    }
    assert {"DiffEdit", "SDEdit"} <= cited
    known = PAGE.lower()
    assert {
        title for title in cited if len(title.split()) == 1 and title.lower() not in known
    } == set()


def test_files_named_are_below_the_package() -> None:
    for _, _, lines in METHODS:
        for file, _ in places(lines):
            tree = ROOT if file.startswith("tests/") else PACKAGE
            assert Path(tree / file).is_file(), file
