"""The site builds without a warning, holds every page, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

for package in ("mkdocs", "material", "mkdocstrings_handlers.python", "mkdocs_jupyter"):
    pytest.importorskip(package, reason="the extra docs is not installed")
site_hooks = pytest.importorskip("docs.site_hooks")

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
INDEX = (DOCS / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built as ``make docs`` builds it."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    settings = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        words, cwd=ROOT, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def page(site: Path, source: str) -> str:
    """HTML of the page that is made of a file of ``docs/``."""
    path = Path(source).with_suffix("")
    path = path.parent if path.name == "README" else path
    return (site / path / "index.html").read_text("utf-8")


class Loaded(HTMLParser):
    """Collects the addresses that a browser loads with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.addresses.append(given.get("src") or "")
        if tag == "link" and given.get("rel") in ("stylesheet", "preconnect", "preload", "icon"):
            self.addresses.append(given.get("href") or "")


def test_every_page_and_the_notebook_are_on_it(site: Path) -> None:
    for source in DOCS.rglob("*.md"):
        assert "<article" in page(site, source.relative_to(DOCS).as_posix())
    assert "data:image/png;base64" in page(site, "tutorials/a_set_in_a_notebook.ipynb")


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    for path in pages:
        loaded = Loaded()
        loaded.feed(path.read_text("utf-8"))
        assert not [a for a in loaded.addresses if re.match(r"(https?:)?//", a)], path


def test_files_outside_docs_are_part_of_it(site: Path) -> None:
    cards = sorted(ROOT.glob("bundles/*/docs/README.md"))
    assert cards
    for card in cards:
        place = card.relative_to(ROOT).parent
        assert (site / "repository" / place / "index.html").is_file(), place
        assert f'href="repository/{place.as_posix()}/"' in page(site, "README.md")
    assert (site / "repository" / "benchmarks" / "results" / "reliability.json").is_file()


def test_each_public_name_is_in_the_reference(site: Path) -> None:
    listed = site_hooks.packages()
    assert "segment" in listed["medsegdiff"] and "make_sampler" in listed["medsegdiff.diffusion"]
    for package, names in listed.items():
        text = page(site, f"reference/api/{package}.md")
        assert [name for name in names if f'id="{package}.{name}"' not in text] == [], package


def test_doctests_are_shown_as_code(site: Path) -> None:
    text = page(site, "reference/api/medsegdiff.training.md")
    assert ">>> " in re.sub(r"<[^>]+>", "", text).replace("&gt;", ">")
    assert "<blockquote>" not in text


def pages_of(sections: list[tuple[str, list[dict[str, str]]]]) -> Iterator[str]:
    for _, pages in sections:
        for entry in pages:
            yield from entry.values()


def test_the_navigation_is_the_order_of_the_index() -> None:
    sections = site_hooks.navigation(INDEX)
    assert [title for title, _ in sections][:3] == ["Start", "Tutorial", "How to"]
    listed = [*pages_of(sections)]
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"README.md"}
    assert pages <= set(listed) and len(listed) == len(set(listed))
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", INDEX)]
    assert [site_hooks.site_path((DOCS / link).resolve()) for link in links] == listed


def test_every_row_of_the_index_is_a_link_of_the_navigation(site: Path) -> None:
    text = page(site, "README.md")
    shown = re.findall(r'href="([^"]+)/"', text[text.index("md-nav--primary") :])
    wanted = [Path(place).with_suffix("") for place in pages_of(site_hooks.navigation(INDEX))]
    places = [path.parent if path.name == "README" else path for path in wanted]
    assert [link for link in shown if Path(link) in places][: len(places)] == [
        path.as_posix() for path in places
    ]


def test_a_row_of_the_index_is_all_that_a_new_page_needs() -> None:
    row = "| [New page](how_to/new_page.md) | what it is for |"
    told = INDEX.replace("| **How to** | |\n", f"| **How to** | |\n{row}\n")
    (pages,) = (pages for title, pages in site_hooks.navigation(told) if title == "How to")
    assert pages[0] == {"New page": "how_to/new_page.md"}


@pytest.mark.parametrize(
    ("source", "link", "moved"),
    [
        ("docs/how_to/plan.md", "../reference/metrics.md#x", "../reference/metrics.md#x"),
        ("docs/how_to/plan.md", "../../SECURITY.md", "../repository/SECURITY.md"),
        ("SECURITY.md", "docs/how_to/plan.md#x", "../how_to/plan.md#x"),
        ("bundles/a/docs/README.md", "../LICENSE", "../LICENSE"),
        ("docs/README.md", "https://a.example/b.md", "https://a.example/b.md"),
        ("docs/README.md", "../../elsewhere.md", "../../elsewhere.md"),
    ],
)
def test_links_lead_to_the_same_file_on_the_site(source: str, link: str, moved: str) -> None:
    path = ROOT / source
    place = site_hooks.site_path(path)
    assert site_hooks.source_of(place) == path
    assert site_hooks.moved_links(f"[a]({link})", path, place) == f"[a]({moved})"
