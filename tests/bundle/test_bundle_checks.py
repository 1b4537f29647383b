"""Each check finds what it is made for, and all bundles that ship pass."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from medsegdiff.bundle import Bundle, list_bundles, load_bundle, validate
from medsegdiff.bundle.bundle_checks import CHECKS
from medsegdiff.bundle.trusted_bundles import trusting
from medsegdiff.cli.main import app

RUNNER = CliRunner()
Change = Callable[[Path], Any]


def outcomes(root: Path, **options: Any) -> dict[str, tuple[str, str]]:
    return {one.name: (one.outcome, one.reason) for one in validate(root, **options)}


@pytest.fixture
def copy(bundle: Bundle, tmp_path: Path) -> Path:
    """A bundle of someone, with weights, which a test may break."""
    root = tmp_path / "someones_mr"
    shutil.copytree(bundle.root, root, ignore=shutil.ignore_patterns("runs", "eval"))
    return root


@pytest.mark.parametrize("shipped", list_bundles(), ids=lambda one: one.name)
def test_bundles_that_ship_pass(shipped: Bundle) -> None:
    found = outcomes(shipped.root)
    assert list(found) == list(CHECKS)
    assert {name: reason for name, (outcome, reason) in found.items() if outcome == "failed"} == {}
    for name, (outcome, reason) in found.items():
        assert outcome == "passed" or len(reason) > 20, name


def test_what_may_not_apply_applies_to_segmenters() -> None:
    for name in ("hippocampus_mr", "lung_nodule_ct"):
        found = outcomes(load_bundle(name).root)
        left = {check for check, (outcome, _) in found.items() if outcome == "not applicable"}
        assert left == {"schema", "torchscript"}


def in_file(name: str, before: str, after: str) -> Change:
    def change(root: Path) -> None:
        path = root / name
        text = path.read_text("utf-8")
        assert before in text
        path.write_text(text.replace(before, after), "utf-8")

    return change


def in_metadata(change: Callable[[dict[str, Any]], Any]) -> Change:
    def apply(root: Path) -> None:
        path = root / "configs" / "metadata.json"
        content = json.loads(path.read_text("utf-8"))
        change(content)
        path.write_text(json.dumps(content), "utf-8")

    return apply


def large_file(root: Path) -> None:
    with (root / "models" / "other.pt").open("wb") as file:
        file.truncate(26_000_000)


def four_channels(metadata: dict[str, Any]) -> None:
    output = metadata["network_data_format"]["outputs"]["pred"]
    output["num_channels"] = 4
    output["channel_def"]["3"] = "whole"


BROKEN: list[tuple[str, Change, str]] = [
    ("files", lambda root: (root / "LICENSE").unlink(), "LICENSE: is missing"),
    ("files", lambda root: (root / "docs/README.md").write_text(""), "README.md: is missing or"),
    ("weight_file", lambda root: (root / "models/model.pt").unlink(), "model.pt: is missing"),
    ("sizes", large_file, "other.pt: has 26.0 MB"),
    ("version", in_metadata(lambda m: m.update(version="9")), "says version 9"),
    ("metadata", in_metadata(lambda m: m.pop("task")), "lacks task"),
    (
        "metadata",
        in_metadata(lambda m: m["network_data_format"]["inputs"]["image"].pop("dtype")),
        "lacks network_data_format#inputs#image#dtype",
    ),
    (
        "channels",
        in_metadata(lambda m: m["network_data_format"].update(outputs={})),
        "lacks network_data_format#outputs",
    ),
    (
        "channels",
        in_metadata(lambda m: m["network_data_format"]["outputs"]["pred"]["channel_def"].pop("2")),
        "outputs#pred has 3 channels, but channel_def names 0, 1",
    ),
    ("configurations", in_file("configs/evaluate.yaml", "run:", "run: ["), "cannot be parsed"),
    (
        "configurations",
        in_file("configs/train.yaml", "%configs/inference.yaml#spacing", "%/etc/x.yaml#spacing"),
        "not in its configs",
    ),
    ("inference", in_file("configs/inference.yaml", "\nevaluator:", "\nother:"), " evaluator"),
    (
        "inference",
        in_file("configs/inference.yaml", '"$@network_input"', "{_target_: Compose}"),
        "refer to them by @",
    ),
    ("training", in_file("configs/train.yaml", "\n  inferer: {", "\n  other: {"), "train#inferer"),
    (
        "training",
        in_file("configs/train.yaml", "@validate#key_metric", "@validate#metric"),
        "validate#key_metric",
    ),
    ("network", in_metadata(four_channels), "does not take and give what the metadata say"),
    (
        "weights",
        lambda root: torch.save({"a": torch.zeros(1)}, root / "models/model.pt"),
        "do not fit network_def",
    ),
    (
        "torchscript",
        in_metadata(lambda m: m.pop("not_applicable")),
        "cannot be a TorchScript",
    ),
]


@pytest.mark.parametrize(("name", "change", "words"), BROKEN)
def test_what_is_broken_is_found(copy: Path, name: str, change: Change, words: str) -> None:
    change(copy)
    with trusting():
        outcome, reason = outcomes(copy)[name]
    assert outcome == "failed" and words in reason
    assert len(reason.rpartition(". ")[2]) > 5  # a remedy


def test_a_large_file_may_be_listed(copy: Path) -> None:
    large_file(copy)
    (copy / "large_files.yml").write_text("large_files: []\n")
    assert outcomes(copy)["sizes"] == ("passed", "")


def test_a_bundle_cannot_exempt_itself_from_what_the_zoo_asks_of_all(copy: Path) -> None:
    (copy / "LICENSE").unlink()
    in_metadata(lambda m: m.update(not_applicable={"files": "no"}))(copy)
    assert outcomes(copy)["files"][0] == "failed"


def test_nothing_of_an_untrusted_bundle_runs(copy: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    code = f"channels: \"$__import__('pathlib').Path('{mark}').touch() or 1\"\n#"
    in_file("configs/inference.yaml", "channels: 1", code)(copy)
    found = outcomes(copy)
    assert not mark.exists()
    assert found["network"][0] == "failed" and "--trust" in found["network"][1]
    assert found["inference"] == ("passed", "")
    with trusting():
        outcomes(copy)
    assert mark.exists()


def test_metadata_are_checked_against_a_schema(copy: Path, tmp_path: Path) -> None:
    pytest.importorskip("jsonschema")
    schema = tmp_path / "schema.json"
    schema.write_text(
        json.dumps({"required": ["version"], "properties": {"task": {"type": "string"}}})
    )
    assert outcomes(copy, schema=schema)["schema"] == ("passed", "")
    in_metadata(lambda m: m.update(task=1))(copy)
    outcome, reason = outcomes(copy, schema=schema)["schema"]
    assert outcome == "failed" and "task: 1 is not of type 'string'. Correct it" in reason
    schema.write_text("{")
    assert "is no JSON schema" in outcomes(copy, schema=schema)["schema"][1]


def test_without_jsonschema_its_extra_is_named(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    outcome, reason = outcomes(copy, schema=tmp_path / "any.json")["schema"]
    assert outcome == "failed" and "pip install 'medsegdiff[validate]'" in reason


def test_the_command_says_a_line_a_check(copy: Path) -> None:
    whole = RUNNER.invoke(app, ["validate", "hippocampus_mr"])
    assert whole.exit_code == 0 and len(whole.stdout.splitlines()) == len(CHECKS)
    assert whole.stdout.splitlines()[0] == "passed: files"
    (copy / "LICENSE").unlink()
    broken = RUNNER.invoke(app, ["validate", str(copy), "-q"])
    assert broken.exit_code == 1
    assert broken.stdout.splitlines()[0].startswith(f"failed: files: {copy}/LICENSE: is missing")
    assert RUNNER.invoke(app, ["validate", "hippocampus_ct"]).exit_code == 2
