"""Blocks that no other test of the pages runs: benchmarks, containers, cards, YAML, Python."""

from __future__ import annotations

import argparse
import json
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from medsegdiff.bundle.bundle import check_keys, list_bundles, load_bundle
from medsegdiff.writers import write_nifti
from medsegdiff.writers.segments import Code, Segment
from tests.docs.test_docs import (
    DOCS,
    PAGES,
    ROOT,
    blocks,
    check_line,
    lines,
    name_of,
    section,
)

CARDS = sorted(ROOT.glob("bundles/*/docs/README.md"))
RESULTS = sorted(ROOT.glob("benchmarks/results/*.md"))


def found(start: str, pages: list[Path]) -> list[Any]:
    """The different lines of the pages' blocks that start so, as parameters of a test."""
    shown = {line: page for page in pages for b in blocks(page) for line in lines(b, start)}
    return [pytest.param(page, line, id=f"{name_of(page)}: {line}") for line, page in shown.items()]


class OptionsReadError(Exception):
    """A benchmark has read its options."""


@pytest.mark.parametrize(
    ("page", "line"), found("python -m benchmarks.", [*PAGES, *CARDS, *RESULTS])
)
def test_shown_benchmarks_exist_and_take_their_options(
    page: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parse_alone(self: argparse.ArgumentParser, *arguments: Any) -> None:
        parse(self, *arguments)
        raise OptionsReadError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_alone)
    _, _, module, *words = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [module, *words])
    with pytest.raises(OptionsReadError):
        runpy.run_module(module, run_name="__main__")


@pytest.mark.parametrize(("page", "line"), found("medsegdiff ", CARDS))
def test_commands_of_the_cards_parse(page: Path, line: str) -> None:
    check_line(line)


@pytest.mark.parametrize(("page", "line"), found("python -m monai.bundle run", CARDS))
def test_monais_commands_of_the_cards_name_keys_that_exist(page: Path, line: str) -> None:
    words = shlex.split(line)[4:]
    options = dict(zip((w.removeprefix("--") for w in words[::2]), words[1::2], strict=True))
    bundle = load_bundle(page.parents[1])
    config = Path(options.pop("config_file"))
    check_keys(bundle.parser(config.stem), options, bundle.root / config)


@pytest.mark.parametrize("card", CARDS, ids=name_of)
def test_a_card_and_its_data_licence_say_the_same_of_the_weights(card: Path) -> None:
    weights = section(card, "## Licence")
    given = (card.parent / "data_license.txt").read_text("utf-8")
    given = " ".join(given.split()).partition("given under")[2]
    assert ("CC BY-SA 4.0" in weights) == ("CC BY-SA 4.0" in given or "same licence" in given)


def test_commands_in_a_container_or_in_several_processes_parse() -> None:
    starts = {"docker run": " medsegdiff ", "python -m torch.distributed.run": " -m medsegdiff "}
    for start, before in starts.items():
        shown = [line for p in PAGES for b in blocks(p) for line in lines(b, start)]
        ours = [line.partition(before)[2] for line in shown if before in line]
        assert ours, start
        for command in ours:
            check_line(f"medsegdiff {command}")


def test_arguments_and_mounts_of_the_container_are_the_dockerfiles() -> None:
    recipe = (ROOT / "Dockerfile").read_text("utf-8")
    page = (DOCS / "how_to" / "containers.md").read_text("utf-8")
    built = set(re.findall(r"--build-arg (\w+)=", page))
    assert built == set(re.findall(r"^ARG (\w+)", recipe, re.M))
    inside = set(re.findall(r"-v \S+:(/\w+)", page))
    assert inside == {
        re.findall(r"^WORKDIR (\S+)", recipe, re.M)[-1],
        re.findall(r"XDG_CONFIG_HOME=(\S+)", recipe)[0],
    }


def test_what_the_container_is_built_from_is_what_the_wheel_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    let_in = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.M))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    texts = {project["project"]["readme"], *project["project"]["license-files"]}
    assert let_in == {*wheel, *texts, "pyproject.toml"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_yaml_and_json_can_be_read(page: Path) -> None:
    for block in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(block), dict | list)
    for block in blocks(page, "json"):
        text = block.strip().replace("...", "")
        json.loads(text if text.startswith(("{", "[")) else f"{{{text}}}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_bundles_extras_and_targets_that_a_page_names_exist(page: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = set(project["optional-dependencies"])
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
    text = page.read_text("utf-8")
    for named in re.findall(r"pip install .*\[([\w,-]+)\]", text):
        assert set(named.split(",")) <= extras
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= set(targets)
    for name in re.findall(r"cp -r bundles/(\w+)", text):
        assert name in {bundle.name for bundle in list_bundles()}


def test_the_extras_of_the_readme_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    table = (ROOT / "README.md").read_text("utf-8").partition("| extra | for |\n")[2]
    rows = re.findall(r"^\| `([\w-]+)` \|", table.partition("\n\n")[0], re.M)
    assert set(rows) == set(project["optional-dependencies"])


def run(page: Path) -> dict[str, Any]:
    """The names that are there after a page's Python has run."""
    space: dict[str, Any] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), space)
    return space


def test_names_of_a_label_map_are_read_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    from medsegdiff.core import Geometry

    organ = Code("123037004", "SCT", "Anatomical Structure")
    segments = [Segment(2, "posterior", (1.0, 0.0, 0.0), organ, organ)]
    mask, geometry = np.full((3, 4, 5), 2, np.uint8), Geometry((3, 4, 5), np.eye(4))
    write_nifti("case_seg.nii.gz", mask, geometry, dtype="uint8", segments=segments)
    assert nib.load("case_seg.nii.gz").shape == (3, 4, 5)
    assert run(DOCS / "how_to" / "open_in_slicer.md")["names"][2] == "posterior"


def test_sizes_of_clicked_nodules_are_printed_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    location = {
        "volume_ml": {"a": {"nodule": 0.5236}},  # a ball of 10 mm
        "volume_interval_90_ml": {"a": {"nodule": [0.4, 0.6]}},
    }
    (tmp_path / "out" / "chest").mkdir(parents=True)
    record = tmp_path / "out" / "chest" / "chest_run.json"
    record.write_text(json.dumps({"location": location}))
    run(DOCS / "how_to" / "clicked_nodules.md")
    assert capsys.readouterr().out == "a: 0.52 ml (0.40 to 0.60), like a ball of 10.0 mm\n"


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert str(cited["version"]) == project["version"]
    assert cited["license"] == project["license"] and cited["title"] == project["name"]
    assert cited["authors"] == project["authors"]
    assert {"cff-version", "message"} <= set(cited)


@pytest.mark.parametrize("form", ["bug", "question", "feature"])
def test_forms_of_issues_are_whole(form: str) -> None:
    path = ROOT / ".github" / "ISSUE_TEMPLATE" / f"{form}.yml"
    read = yaml.safe_load(path.read_text("utf-8"))
    assert {"name", "description", "body"} <= set(read)
    fields = [field for field in read["body"] if field["type"] != "markdown"]
    names = [field["id"] for field in fields]
    assert len(set(names)) == len(names) > 0
    assert all(field["attributes"].get("label") for field in fields)
    assert "patient" in path.read_text("utf-8") or form == "feature"
