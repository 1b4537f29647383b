"""A generated cohort, and a bundle of a tiny network that was trained on it for one epoch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # the commands' imports take seconds, which few tests need
    from medsegdiff.bundle.bundle import Bundle

TINY = {
    "inference.yaml": {
        "channels: [16, 32, 64, 192]": "channels: [8, 8, 8, 16]",
        "channels: [16, 32, 64]": "channels: [8, 8, 16]",
    },
    "train.yaml": {"patch_size: [40, 56, 40]": "patch_size: [16, 16, 16]"},
}


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five 3D cases of the bundle's two structures; the path of their ``dataset.json``."""
    from medsegdiff.bundle.bundle import load_bundle
    from medsegdiff.phantoms.cohort import write_cohort

    path = write_cohort(tmp_path_factory.mktemp("phantom"), cases=5, size=16, classes=2)
    described = json.loads(path.read_text(encoding="utf-8"))
    described["labels"] = load_bundle("hippocampus_mr").labels
    path.write_text(json.dumps(described), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A copy of the shipped bundle with a tiny network and no weights."""
    from medsegdiff.bundle.bundle import Bundle, load_bundle

    root = tmp_path_factory.mktemp("bundles") / "tiny_mr"
    shipped = load_bundle("hippocampus_mr").root
    shutil.copytree(
        shipped, root, ignore=shutil.ignore_patterns("*.pt", "calibration.json", "runs", "eval")
    )
    for name, changes in TINY.items():
        path = root / "configs" / name
        text = path.read_text(encoding="utf-8")
        for before, after in changes.items():
            assert before in text
            text = text.replace(before, after)
        path.write_text(text, encoding="utf-8")
    return Bundle(root)


@pytest.fixture(scope="session")
def trained(untrained: Bundle, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch."""
    from medsegdiff.training.run import train

    output = tmp_path_factory.mktemp("runs") / "first"
    train(untrained, cohort, output, device="cpu", overrides=quick(output))
    return output


@pytest.fixture(scope="session")
def bundle(untrained: Bundle, trained: Path) -> Bundle:
    """The tiny bundle with the weights of that run."""
    (untrained.root / "models").mkdir(exist_ok=True)
    shutil.copy(trained / "final.pt", untrained.root / "models" / "model.pt")
    return untrained


def quick(output: Path, epochs: int = 1) -> dict[str, object]:
    """Settings for a training run of seconds."""
    return {
        "train#trainer#max_epochs": epochs,
        "val_interval": 1,
        "validate#inferer#members": 2,
        "validate#inferer#steps": 1,
        "tracking_uri": f"sqlite:///{output.parent}/mlruns.db",
    }
