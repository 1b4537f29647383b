"""The tutorial of counterfactuals runs, with less training than it asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from medsegdiff.bundle.bundle import check_keys, load_bundle
from tests.docs.test_docs import DOCS, blocks, run_line, section, table_keys

TUTORIAL = DOCS / "tutorials" / "counterfactual.md"
COMMAND = "## `medsegdiff counterfactual INPUT...`"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all of the tutorial's ``bash`` blocks have run, in their order."""
    place = tmp_path_factory.mktemp("counterfactual")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for block in blocks(TUTORIAL, "bash"):
            for line in block.splitlines():
                few = re.sub(r"(max_epochs|val_interval)=\d+", r"\1=1", line)
                run_line(few, place)
    yield place


def test_the_tutorial_leaves_the_files_it_names(folder: Path) -> None:
    found = folder / "found" / "phantom_0001"
    names = table_keys(section(TUTORIAL, "## 3. Look"))
    assert len(names) == 6
    for name in names:
        assert (found / name.replace("<case>", "phantom_0001")).is_file(), name
    record = json.loads((found / "phantom_0001_run.json").read_text())
    assert record["calibrated"]
    page = section(DOCS / "reference" / "commands_and_files.md", COMMAND)
    (row,) = re.findall(r"^\| `<case>_run.json` \|.*`difference`: (.*)\|$", page, re.M)
    assert set(re.findall(r"`(\w+)`", row)) == set(record["difference"])


def test_the_tutorial_fits_a_calibration(folder: Path) -> None:
    stored = json.loads((folder / "mine" / "models" / "difference.json").read_text())
    assert stored["n"] == 12  # the held-out fold
    page = section(DOCS / "reference" / "commands_and_files.md", COMMAND)
    assert all(f"`{key}`" in page for key in stored)
    record = json.loads(next((folder / "calibrated").glob("*/*_run.json")).read_text())
    assert record["calibrated"]


def test_documented_keys_of_the_configuration_exist() -> None:
    text = section(DOCS / "reference" / "configuration.md", "## `counterfactual.yaml`")
    parser = ConfigParser()
    path = load_bundle("phantom_counterfactual").config("counterfactual")
    parser.read_config(str(path))
    check_keys(parser, dict.fromkeys(table_keys(text)), path)


def test_documented_defaults_are_the_bundles() -> None:
    text = section(DOCS / "reference" / "commands_and_files.md", COMMAND)
    shipped = load_bundle("phantom_counterfactual").parser("counterfactual").config
    for option in ("level", "steps", "guidance", "encoding", "draws", "seed", "calibration"):
        (told,) = re.findall(rf"^\| `--{option}[ `].*?the bundle's \(`?([\w.]+)`?\)", text, re.M)
        assert told == str(shipped[option]).removesuffix(".0"), option
