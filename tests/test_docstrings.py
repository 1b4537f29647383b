"""Each entry of ``Args`` and ``Attributes`` in a docstring begins with a noun."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "medsegdiff"

CHECKED = (
    *("calibration", "core", "dicomweb", "diffusion", "few_label", "metrics", "networks"),
    *("phantoms", "segmentation", "synthesis", "training", "viz"),
    *("data/dicom", "data/layouts", "data/public", "data/references"),
    *("data/deformation.py", "data/fitness.py", "data/label_values.py", "data/manifest.py"),
    *("data/named_sets.py", "data/planes.py", "data/predictions.py"),
    *("data/pixel_spacing.py", "data/written_description.py"),
)
"""Folders and files of the package whose docstrings are checked; in the end all of them."""

NOT_NOUNS = frozenset(
    "after as beside for from how in of see that to told what where which whose with".split()
)
"""First words that leave a reader to guess what an argument is."""

_SECTION = re.compile(r"(Args|Attributes):$")
_ENTRY = re.compile(r" {4}(\S.*?): +(.*)$")


def entries(docstring: str) -> Iterator[tuple[str, str]]:
    """Name and first line of each argument or attribute in a docstring without indentation."""
    inside = False
    for line in docstring.splitlines():
        if line and not line.startswith(" "):
            inside = _SECTION.match(line) is not None
        found = _ENTRY.match(line)
        if inside and found:
            yield found[1], found[2]


def begins_with_noun(text: str) -> bool:
    """Whether the first word is capitalised or a literal, of two letters or more, and no particle.

    "A", "I" and the like are refused too: "A file" says less than "Path of the file".
    """
    if text.startswith(("``", ":", "(")):
        return text.startswith(("``", ":"))
    word = re.split(r"[^\w'-]", text)[0]
    return len(word) > 1 and not word[0].islower() and word.lower() not in NOT_NOUNS


def docstrings(file: Path) -> Iterator[tuple[str, str]]:
    """Name and docstring of everything in a file that has one."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = ast.get_docstring(node)
            if found:
                yield getattr(node, "name", "module"), found


def faults(file: Path) -> list[str]:
    """Entries of a file that begin with no noun."""
    return [
        f"{owner}, {name}: {text}"
        for owner, docstring in docstrings(file)
        for name, text in entries(docstring)
        if not begins_with_noun(text)
    ]


def _is_checked(file: Path) -> bool:
    place = file.relative_to(PACKAGE)
    return any(place.is_relative_to(part) for part in CHECKED)


@pytest.mark.parametrize("part", CHECKED)
def test_checked_parts_exist(part: str) -> None:
    assert (PACKAGE / part).exists()


CHECKED_FILES = sorted(file for file in PACKAGE.rglob("*.py") if _is_checked(file))


@pytest.mark.parametrize("file", CHECKED_FILES, ids=lambda f: f.relative_to(PACKAGE).as_posix())
def test_entries_begin_with_a_noun(file: Path) -> None:
    assert faults(file) == []


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("Number of members.", True),
        ("``auto``, or a device.", True),
        ("N.", False),
        ("that may have one.", False),
        ("Of the file.", False),
        ("(K, *spatial) in [0, 1].", False),
        ("number of members.", False),
    ],
)
def test_nouns_are_told_from_particles(text: str, good: bool) -> None:
    (found,) = entries(
        f"Title.\n\nArgs:\n    name: {text}\n        More: of it.\n\nRaises:\n    E: x"
    )
    assert found == ("name", text)
    assert begins_with_noun(text) is good
