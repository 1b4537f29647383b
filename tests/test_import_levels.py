"""Imports point from a higher level to a lower one; a single-purpose library lives in one file.

The tables of levels in the documentation are made from here; after a change of ``LEVELS``:

python -m tests.test_import_levels --write
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import medsegdiff

PACKAGE = Path(medsegdiff.__file__).parent
ROOT = Path(__file__).resolve().parents[1]

LEVELS = {
    "core": 0,
    **dict.fromkeys(("data", "diffusion", "networks", "metrics", "dicomweb"), 1),
    **dict.fromkeys(("models", "phantoms", "viz"), 2),
    **dict.fromkeys(("bundle", "triage", "writers"), 3),
    **dict.fromkeys(("calibration", "training"), 4),
    **dict.fromkeys(("locating", "planning", "segmentation"), 5),
    **dict.fromkeys(("cases", "evaluation", "exporting"), 6),
    **dict.fromkeys(
        ("few_label", "synthesis", "counterfactual", "prompting", "study", "other_models"), 7
    ),
    "cli": 8,
}

TOP = {Path("__init__.py"): 0, Path("__main__.py"): 99}
"""Files beside the folders: the lazy names of all, and the program."""

NEIGHBOURS: set[tuple[str, str]] = set()
"""Steps within a level."""

ONE_FILE = {
    "highdicom": {"writers/dicom_derived.py"},
    "dicomweb_client": {"dicomweb/client.py"},
    "requests": {"dicomweb/answers.py", "dicomweb/client.py", "dicomweb/stow.py"},
    "slicerio": {"writers/nrrd.py"},
    "nrrd": {"writers/nrrd.py"},
    "SimpleITK": {"data/readers/reading_worker.py", "locating/template.py"},
    "nilearn": {"cases/demonstration.py", "locating/template.py"},
    "jinja2": {"viz/pages.py"},
    "onnxruntime": {"exporting/exported_files.py"},
    "onnxscript": {"exporting/exported_files.py"},
    "jsonschema": {"bundle/metadata_checks.py"},
    "torchmetrics": {"metrics/torch_metrics.py"},
    "sklearn": {"triage/familiarity.py", "triage/presence.py"},
    "diffusers": {"prompting/pipeline.py"},
    "transformers": {"prompting/pipeline.py"},
    "kornia": {"prompting/refine.py"},
    "gdcm": {"data/dicom/decoding_worker.py"},
    "pydicom": {
        "data/dicom/decoder.py",
        "data/dicom/decoding_worker.py",
        "data/dicom/find.py",
        "data/dicom/flat.py",
        "data/dicom/frames.py",
        "data/dicom/headers.py",
        "data/dicom/kinds.py",
        "data/dicom/pixels.py",
        "phantoms/cohort.py",
        "data/references/opening.py",
        "dicomweb/stow.py",
        "writers/dicom_source.py",
        "writers/dicom_seg.py",
        "writers/parametric_map.py",
        "writers/secondary_capture.py",
    },
}
"""The files that may import a library of one purpose."""

FORBIDDEN = {
    "diffusion": {"monai"},
    "writers": {"torch", "monai"},
}
"""Libraries that a package does without."""

MODULES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py"))


def part_of(module: Path) -> str:
    """The folder, or the file at the top, that a module belongs to."""
    return module.parts[0].removesuffix(".py")


def imports(module: Path, *, at_import_time: bool = False) -> Iterator[str]:
    """Absolute names of all that a module imports, optionally only what its own import runs."""
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    nodes = tree.body if at_import_time else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ("medsegdiff", *module.parts[:-1])
            start = ".".join(base[: len(base) - node.level + 1]) if node.level else ""
            origin = ".".join(filter(None, (start, node.module or "")))
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def own(names: Iterator[str]) -> set[str]:
    """The parts of this package among imported names (``__version__`` is none)."""
    dotted = (name.split(".") for name in names)
    return {n[1] for n in dotted if n[0] == "medsegdiff" and len(n) > 1 and n[1] != "__version__"}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_a_level(module: Path) -> None:
    assert part_of(module) in LEVELS or module in TOP


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_downwards(module: Path) -> None:
    here = part_of(module)
    others = own(imports(module)) - {here}
    wrong = {
        part
        for part in others
        if LEVELS[part] >= LEVELS.get(here, TOP.get(module, 0)) and (here, part) not in NEIGHBOURS
    }
    assert not wrong, f"{module} (level {LEVELS.get(here, 0)}) imports {sorted(wrong)}"


@pytest.mark.parametrize("library", sorted(ONE_FILE))
def test_single_purpose_library_is_imported_in_its_file_only(library: str) -> None:
    users = {m.as_posix() for m in MODULES if library in {n.split(".")[0] for n in imports(m)}}
    assert users <= ONE_FILE[library]


@pytest.mark.parametrize("part", sorted(FORBIDDEN))
def test_package_does_without(part: str) -> None:
    for module in MODULES:
        if part_of(module) == part:
            found = {name.split(".")[0] for name in imports(module)}
            assert not found & FORBIDDEN[part], f"{module} imports {found & FORBIDDEN[part]}"


def test_commands_are_quick_to_explain_themselves() -> None:
    for module in MODULES:
        if part_of(module) == "cli":
            heavy = {n.split(".")[0] for n in imports(module, at_import_time=True)}
            assert not heavy & {"torch", "monai", "nibabel", "matplotlib"}, module


def holds(room: str) -> str:
    """What a folder of the package holds, as the first line of its docstring says."""
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0].rstrip(".")


def level_table() -> str:
    """One row a level."""
    rows = [
        f"| {level} | {', '.join(f'`{r}`' for r in sorted(LEVELS) if LEVELS[r] == level)} |"
        for level in sorted(set(LEVELS.values()))
    ]
    return "\n".join(["| level | folders of `medsegdiff/` |", "| --- | --- |", *rows])


def room_table() -> str:
    """One row a folder, from the lowest level to the highest."""
    rooms = sorted(LEVELS, key=lambda room: (LEVELS[room], room))
    rows = [f"| {LEVELS[room]} | `{room}` | {holds(room)} |" for room in rooms]
    return "\n".join(["| level | folder | holds |", "| --- | --- | --- |", *rows])


TABLES = {"CONTRIBUTING.md": level_table, "docs/explanation/architecture.md": room_table}
START, END = "<!-- levels: made by tests/test_import_levels.py -->", "<!-- end of levels -->"
MARKED = re.compile(f"(?<={START}\n).*?(?={END})", re.DOTALL)


def with_table(page: str) -> str:
    """The text of a page with its table as ``LEVELS`` has it."""
    text, count = MARKED.subn(
        lambda _: f"\n{TABLES[page]()}\n\n", (ROOT / page).read_text(encoding="utf-8")
    )
    if count != 1:
        raise ValueError(f"{page} must hold the lines {START} and {END} once. Got {count}.")
    return text


@pytest.mark.parametrize("page", sorted(TABLES))
def test_documented_levels_are_those_tested(page: str) -> None:
    same = (ROOT / page).read_text(encoding="utf-8") == with_table(page)
    assert same, f"{page} is old. Run: python -m tests.test_import_levels --write"


def test_every_folder_has_a_level_and_says_what_it_holds() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(LEVELS) == folders
    assert all(holds(room) for room in LEVELS)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.test_import_levels --write")
    for name in TABLES:
        (ROOT / name).write_text(with_table(name), encoding="utf-8")
