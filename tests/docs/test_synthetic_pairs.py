"""The tutorial of synthetic pairs runs, with less training than it asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from medsegdiff.bundle.bundle import check_keys, load_bundle
from medsegdiff.data.manifest import load_manifest
from tests.docs.test_docs import DOCS, blocks, run_line, section, table_keys

TUTORIAL = DOCS / "tutorials" / "synthetic_pairs.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all of the tutorial's ``bash`` blocks have run, in their order."""
    place = tmp_path_factory.mktemp("synthetic_pairs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for block in blocks(TUTORIAL, "bash"):
            for line in block.splitlines():
                run_line(re.sub(r"(max_epochs|val_interval)=\d+", r"\1=2", line), place)
    yield place


def test_the_small_bundle_is_what_the_text_says(folder: Path) -> None:
    bundle = load_bundle(folder / "phantom_synthesis")
    for parser in (bundle.parser("train"), bundle.parser("synthesize")):
        assert parser["size"] == [24, 24, 24] and parser["draws"] == "image"
        assert parser["network_def#denoiser#channels"] == [16, 32]
    used = json.loads((folder / "runs" / "images" / "cases.json").read_text())
    assert "phantom_009" in used["training"]  # one without a mask


def test_the_tutorial_draws_cases_and_trains_on_them(folder: Path) -> None:
    drawn = load_manifest(folder / "synthetic")
    record = json.loads((folder / "synthetic" / "synthesis.json").read_text())
    assert len(drawn.cases) == record["kept"] == 8 and record["settings"]["seed"] == 1
    used = json.loads((folder / "runs" / "mixed" / "cases.json").read_text())
    assert used["training"][-8:] == [case.id for case in drawn.cases]
    assert not set(used["validation"]) & {case.id for case in drawn.cases}


def test_documented_keys_of_the_record_are_those_it_has(folder: Path) -> None:
    page = DOCS / "reference" / "commands_and_files.md"
    record = json.loads((folder / "synthetic" / "synthesis.json").read_text())
    assert table_keys(section(page, "### Keys of `synthesis.json`")) == set(record)
    text = section(page, "## `medsegdiff synthesize BUNDLE`")
    assert set(record["dropped"]) <= table_keys(text)


def test_documented_keys_of_the_configuration_exist() -> None:
    text = section(DOCS / "reference" / "configuration.md", "## `synthesize.yaml`")
    parser = ConfigParser()
    path = load_bundle("hippocampus_synthesis").config("synthesize")
    parser.read_config(str(path))
    check_keys(parser, dict.fromkeys(table_keys(text)), path)
