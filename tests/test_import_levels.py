"""Imports point from a higher level to a lower one; a single-purpose library lives in one file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import medsegdiff

PACKAGE = Path(medsegdiff.__file__).parent

LEVELS = {
    "core": 0,
    **dict.fromkeys(("data", "diffusion", "networks", "metrics", "dicomweb"), 1),
    **dict.fromkeys(("models", "phantoms", "viz"), 2),
    **dict.fromkeys(("bundle", "writers"), 3),
    **dict.fromkeys(("calibration", "training"), 4),
    "segmentation": 5,
    **dict.fromkeys(("cases", "evaluation"), 6),
    **dict.fromkeys(("few_label", "synthesis", "counterfactual", "prompting"), 7),
    "cli": 8,
}

NEIGHBOURS: set[tuple[str, str]] = set()
"""Steps within a level."""

ONE_FILE = {
    "highdicom": {"writers/dicom_derived.py"},
    "dicomweb_client": {"dicomweb/client.py"},
    "requests": {"dicomweb/client.py", "dicomweb/store.py"},
    "slicerio": {"writers/nrrd.py"},
    "nrrd": {"writers/nrrd.py"},
    "SimpleITK": {"data/readers/itk.py"},
    "nilearn": {"cases/demonstration.py"},
    "jinja2": {"viz/pages.py"},
    "diffusers": {"prompting/pipeline.py"},
    "transformers": {"prompting/pipeline.py"},
    "kornia": {"prompting/refine.py"},
    "pydicom": {
        "data/dicom/duplicates.py",
        "data/dicom/find.py",
        "data/dicom/headers.py",
        "data/dicom/kinds.py",
        "data/dicom/pixels.py",
        "phantoms/cohort.py",
        "data/references/opening.py",
        "dicomweb/store.py",
        "writers/dicom_derived.py",
        "writers/dicom_seg.py",
        "writers/parametric_map.py",
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
    assert part_of(module) in LEVELS or module == Path("__init__.py")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_point_downwards(module: Path) -> None:
    here = part_of(module)
    others = own(imports(module)) - {here}
    wrong = {
        part
        for part in others
        if LEVELS[part] >= LEVELS.get(here, 0) and (here, part) not in NEIGHBOURS
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
