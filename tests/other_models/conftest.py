"""A generated cohort of nine cases with the classes Anterior and Posterior."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medsegdiff.data.manifest import Manifest, load_manifest
from medsegdiff.phantoms.cohort import write_cohort


@pytest.fixture(scope="session")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the ``dataset.json`` of nine 3D cases."""
    path = write_cohort(tmp_path_factory.mktemp("nine"), cases=9, size=16, classes=2)
    described = json.loads(path.read_text(encoding="utf-8"))
    described["labels"] = {"0": "background", "1": "Anterior", "2": "Posterior"}
    path.write_text(json.dumps(described), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def known(nine: Path) -> Manifest:
    """That data set."""
    return load_manifest(nine)
