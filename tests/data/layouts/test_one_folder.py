from __future__ import annotations

from pathlib import Path

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.fitness import check
from medsegdiff.data.manifest import load_manifest
from tests.data.layouts.files import image, label, save


def test_files_are_told_apart_by_name(tmp_path: Path) -> None:
    for seed, name in enumerate(("001_HC", "002_HC", "003_HC")):
        save(tmp_path / f"{name}.png", image(seed, (6, 5)))
        save(tmp_path / f"{name}_Annotation.png", label(255, shape=(6, 5)))
    save(tmp_path / "004_HC.png", image(9, (6, 5)))
    manifest = load_manifest(tmp_path)
    assert [(case.id, bool(case.labels)) for case in manifest.cases] == [
        ("001_HC", True),
        ("002_HC", True),
        ("003_HC", True),
        ("004_HC", False),
    ]
    assert check(manifest).fit


def test_images_alone_are_no_data_set(tmp_path: Path) -> None:
    save(tmp_path / "a.png", image(0, (6, 5)))
    with pytest.raises(InputError, match="no known layout"):
        load_manifest(tmp_path)
