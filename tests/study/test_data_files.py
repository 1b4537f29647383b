"""The digest of a data set, and another number of folds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medsegdiff.core.errors import UsageError
from medsegdiff.data.manifest import default_folds, load_manifest
from medsegdiff.study import data_files
from medsegdiff.study.data_files import data_digest, with_folds


def test_the_digest_follows_the_content_and_not_the_place(cohort: Path, tmp_path: Path) -> None:
    first = data_digest(load_manifest(cohort), {})
    moved = Path(shutil.copytree(cohort.parent, tmp_path / "moved"))
    assert data_digest(load_manifest(moved), {}) == first
    label = next((moved / "labelsTr").glob("*.nii.gz"))
    label.write_bytes(label.read_bytes() + b"\0")
    assert data_digest(load_manifest(moved), {}) != first


def test_unchanged_files_are_not_read_again(cohort: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, list[Any]] = {}
    first = data_digest(load_manifest(cohort), known)
    assert not any(str(cohort.parent) in name for name in known)
    monkeypatch.setattr(data_files, "digest", lambda _: pytest.fail("read again"))
    assert data_digest(load_manifest(cohort), known) == first


def test_another_number_of_folds(cohort: Path, tmp_path: Path) -> None:
    file = tmp_path / "dataset.json"
    assert with_folds(cohort, None, file) == str(cohort) and not file.exists()
    before, after = load_manifest(cohort), load_manifest(with_folds(cohort, 2, file))
    assert after.cases == before.cases and after.labels == before.labels
    assert after.folds == default_folds([case.patient for case in before.cases], 2)


def test_folds_of_the_data_set_are_kept(cohort: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(cohort.parent, tmp_path / "moved"))
    described = json.loads((moved / "dataset.json").read_text())
    patients = [case.patient for case in load_manifest(moved).cases]
    described["folds"] = [patients[:2], patients[2:]]
    (moved / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(UsageError, match="names its own 2 folds"):
        with_folds(moved, 3, tmp_path / "dataset.json")
