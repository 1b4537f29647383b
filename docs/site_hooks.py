"""What the site needs beyond MkDocs: the navigation, files outside ``docs/``, pages of the API.

The pages are written for a reader of the repository. So the navigation is the table of
``README.md``, whose rows in bold begin a section, and a file outside ``docs/`` that a page links to
becomes a page or a file of the site, below ``repository/``.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
INDEX = "README.md"
OUTSIDE = "repository"
API = "reference/api"

_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
_ROW = re.compile(r"^\| (.*?) \| (.*?) ?\|$", re.M)
_NAMED = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> None:
    """Take the navigation from the table of the index."""
    sections = navigation((DOCS / INDEX).read_text("utf-8"))
    api = [{package: f"{API}/{package}.md"} for package in packages()]
    config.nav = [{"Overview": INDEX}, *({title: pages} for title, pages in sections)]
    config.nav.append({"API": api})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what pages link to outside ``docs/``, and a page for each package."""
    for path in sorted(linked_outside()):
        files.append(File.generated(config, site_path(path), abs_src_path=str(path)))
    for package, names in packages().items():
        files.append(File.generated(config, f"{API}/{package}.md", content=page_of(package, names)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page at the places that files have on the site."""
    return moved_links(markdown, source_of(page.file.src_uri), page.file.src_uri)


def navigation(index: str) -> list[tuple[str, list[dict[str, str]]]]:
    """Sections of the site: title, and pages as title -> path on the site.

    Args:
        index: Text of the index, whose tables have a row in bold for each section.
    """
    sections: list[tuple[str, list[dict[str, str]]]] = []
    for first, second in _ROW.findall(index):
        if first.startswith("**"):
            sections.append((first.strip("*"), []))
        links = _NAMED.findall(first) or _NAMED.findall(second)
        for title, link in links if sections else ():
            sections[-1][1].append({title: site_path((DOCS / link).resolve())})
    return sections


def linked_outside() -> set[Path]:
    """Files outside ``docs/`` that its pages link to, and those that these pages link to."""
    found: set[Path] = set()
    waiting = [*DOCS.rglob("*.md")]
    while waiting:
        for path in links_of(waiting.pop()):
            if path.is_file() and not path.is_relative_to(DOCS) and path not in found:
                found.add(path)
                waiting += [path] if path.suffix == ".md" else []
    return found


def links_of(page: Path) -> Iterator[Path]:
    """Files and folders that a page links to, as absolute paths."""
    for link, _ in _LINK.findall(page.read_text("utf-8")):
        if ":" not in link:
            yield (page.parent / link).resolve()


def site_path(path: Path) -> str:
    """Path on the site, before it is rendered, of a file of the repository."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return f"{OUTSIDE}/{path.relative_to(ROOT).as_posix()}"


def source_of(place: str) -> Path:
    """File of the repository that has a place on the site: the inverse of :func:`site_path`."""
    outside = place.removeprefix(f"{OUTSIDE}/")
    return DOCS / place if outside == place else ROOT / outside


def moved_links(markdown: str, source: Path, place: str) -> str:
    """The text of a page whose links to files are those of the site.

    Args:
        markdown: Text of the page.
        source: Path of the page in the repository.
        place: Path of the page on the site, before it is rendered.
    """

    def moved(found: re.Match[str]) -> str:
        link, anchor = found[1], found[2] or ""
        target = (source.parent / link).resolve()
        if ":" in link or not target.is_relative_to(ROOT):
            return found[0]
        folder = Path("/", place).parent
        return os.path.relpath(Path("/", site_path(target)), folder) + anchor

    return _LINK.sub(moved, markdown)


def packages() -> dict[str, list[str]]:
    """Public names of the package and of each folder of it, from their ``__init__.pyi``."""
    stubs = sorted((ROOT / "medsegdiff").rglob("__init__.pyi"))
    return {".".join(s.parent.relative_to(ROOT).parts): public_names(s) for s in stubs}


def public_names(stub: Path) -> list[str]:
    """Names that a stub gives to others, but for packages, which have pages of their own."""
    given = [n for n in ast.parse(stub.read_text("utf-8")).body if isinstance(n, ast.ImportFrom)]
    return [name.name for node in given if node.module for name in node.names]


def page_of(package: str, names: list[str]) -> str:
    """Markdown of a package's page: its docstring, then each of its public names."""
    options: dict[str, Any] = {"members": False, "show_root_heading": False}
    head = f"# `{package}`\n\n::: {package}\n    options: {options}\n"
    return head + "".join(f"\n::: {package}.{name}\n" for name in names)
