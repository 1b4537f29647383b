"""A file's name tells what it is about without its folder: none occurs twice."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SPECIAL = {"__init__.py", "__main__.py"}
NAMED_BY_OTHERS = {"integrations/monai_label/main.py"}
"""Files whose name the program that runs them asks for."""


def test_no_file_name_occurs_twice() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for tree in ("medsegdiff", "benchmarks", "integrations"):
        for path in sorted((ROOT / tree).rglob("*.py")):
            places[path.name].append(path.relative_to(ROOT).as_posix())
    places["main.py"] = [path for path in places["main.py"] if path not in NAMED_BY_OTHERS]
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert {name: found for name, found in twice.items() if name not in SPECIAL} == {}


@pytest.mark.parametrize("tree", ["medsegdiff", "benchmarks"])
def test_no_file_is_named_as_a_folder_beside_it(tree: str) -> None:
    """Imports of ``a.b`` would mean either."""
    for path in (ROOT / tree).rglob("*.py"):
        assert not path.with_suffix("").is_dir(), path
