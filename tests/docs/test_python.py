"""The Python that is shown runs: the notebook's cells, and the page on the functions."""

from __future__ import annotations

import base64
import inspect
import json
import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import medsegdiff

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOK = DOCS / "tutorials" / "a_set_in_a_notebook.ipynb"
PAGE = DOCS / "reference" / "python_api.md"


def run(sources: list[str]) -> dict[str, Any]:
    """The names that are there after the sources have run one after the other."""
    space: dict[str, Any] = {}
    for source in sources:
        plain = "\n".join(line for line in source.splitlines() if not line.startswith("%"))
        exec(compile(plain, "cell", "exec"), space)
    return space


def test_the_cells_of_the_notebook_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nilearn")
    monkeypatch.chdir(tmp_path)
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    found = run(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"])
    assert found["failures"] == {}
    assert isinstance(found["figure"], Figure)
    titles = [panel.get_title() for panel in found["figure"].axes]
    assert titles[-2:] == ["Mean", "Variance"] and len(titles) == 9


def test_the_notebook_shows_a_small_picture_and_no_path() -> None:
    text = NOTEBOOK.read_text("utf-8")
    outputs = [o for c in json.loads(text)["cells"] for o in c.get("outputs", ())]
    (picture,) = (o["data"]["image/png"] for o in outputs if "image/png" in o["data"])
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert len(text) < 100_000
    assert not re.search(r"/(home|tmp|work|root)/", text)


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).normal(100, 20, (30, 40, 28)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), "scan.nii.gz")
    found = run(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S))
    assert found["failures"] == {}
    assert isinstance(found["figure"], Figure)


def test_the_pages_functions_and_arguments_exist() -> None:
    rows = re.findall(r"^\| `medsegdiff\.(\w+)\((.*?)\)`", PAGE.read_text("utf-8"), re.M)
    public = (name for name in dir(medsegdiff) if inspect.isfunction(getattr(medsegdiff, name)))
    assert {name for name, _ in rows} == set(public)
    for name, text in rows:
        shown = [word.strip() for word in text.split(",") if word.strip() != "*"]
        known = inspect.signature(getattr(medsegdiff, name)).parameters
        names = [word.lstrip("*") for word in shown]
        assert names == [n for n in known if n in names]
        needed = [n for n, p in known.items() if p.default is p.empty]
        assert set(needed) <= set(names)


def test_the_example_of_metrics_in_a_training_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "how_to" / "metrics_in_your_training.md").read_text("utf-8")
    run(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S))
    assert capsys.readouterr().out == "0.000 0.000\n"


def test_the_examples_of_monais_tools_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the last, which is of networks that a reader has."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    values = np.random.default_rng(0).normal(100, 20, (30, 40, 28)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), "scans/scan.nii.gz")
    text = (DOCS / "how_to" / "monai_bundles.md").read_text("utf-8")
    found = run(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)[:-1])
    assert found["failed"] == []
    assert nib.load("out/scan/scan_seg.nii.gz").shape == (30, 40, 28)
    weights = torch.load(found["bundle"].weights(), weights_only=True)
    name = next(iter(weights))
    assert torch.equal(found["network"].state_dict()[name], weights[name])
