"""The tutorial of counterfactuals runs, with less training than it asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from medsegdiff.bundle import check_keys, find_bundle
from tests.docs.test_docs import DOCS, blocks, run_line, section, table_keys

TUTORIAL = DOCS / "tutorials" / "counterfactual.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all of the tutorial's ``bash`` blocks have run, in their order."""
    place = tmp_path_factory.mktemp("counterfactual")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for block in blocks(TUTORIAL, "bash"):
            for line in block.splitlines():
                few = re.sub(r"(max_epochs|val_interval)=\d+", r"\1=2", line)
                run_line(few.replace("cases=400", "cases=40").replace("cases=10", "cases=4"), place)
    yield place


def test_the_tutorial_ends_with_files_as_it_says(folder: Path) -> None:
    case = folder / "out" / "phantom_0001"
    for name in ("counterfactual", "difference", "mean_lesion", "seg"):
        assert (case / f"phantom_0001_{name}.nii.gz").is_file()
    record = json.loads((case / "phantom_0001_run.json").read_text())
    assert record["calibrated"]
    assert set(record["difference"]) == {"mean", "percentile_95", "greatest"}
    stored = json.loads((folder / "my_counterfactual" / "models" / "difference.json").read_text())
    assert stored["n"] == 8  # the held-out fold
    report = json.loads((folder / "report" / "report.json").read_text())
    assert len(report["cases"]) == 4
    other = json.loads(next((folder / "other").glob("*/*_run.json")).read_text())
    assert (other["encoding"], other["level"], other["calibrated"]) == ("noise", 0.5, False)


def test_documented_keys_of_the_configuration_exist() -> None:
    text = section(DOCS / "reference" / "configuration.md", "## `counterfactual.yaml`")
    parser = ConfigParser()
    path = find_bundle("phantom_counterfactual").config("counterfactual")
    parser.read_config(str(path))
    check_keys(parser, dict.fromkeys(table_keys(text)), path)


def test_documented_defaults_are_the_bundles() -> None:
    text = section(
        DOCS / "reference" / "commands_and_files.md", "## `medsegdiff counterfactual INPUT...`"
    )
    shipped = find_bundle("phantom_counterfactual").parser("counterfactual").config
    for option in ("level", "steps", "guidance", "encoding", "draws", "seed"):
        (told,) = re.findall(rf"^\| `--{option} .*?the bundle's \(`?([\w.]+)`?\)", text, re.M)
        assert told == str(shipped[option]).removesuffix(".0"), option
