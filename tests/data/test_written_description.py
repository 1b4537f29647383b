from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.manifest import load_manifest
from medsegdiff.data.written_description import write_description
from tests.data.layouts.files import image, label, save, write_json


def test_it_is_read_to_the_same_data_set(tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        for channel in (0, 1):
            save(tmp_path / "imagesTr" / f"{name}_{channel:04d}.nii.gz", image(seed + channel))
        save(tmp_path / "labelsTr" / f"{name}.nii.gz", label(1, 2))
    described = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "one": 1, "ignore": 2},
        "file_ending": ".nii.gz",
    }
    write_json(tmp_path / "dataset.json", described)
    for file in (tmp_path / "written.json", tmp_path / "elsewhere" / "dataset.json"):
        write_description(tmp_path, file)
        first, again = load_manifest(tmp_path), load_manifest(file)
        assert again.cases == first.cases
        assert replace(again, cases=(), root=first.root, layout="") == replace(
            first, cases=(), layout=""
        )


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(InputError, match="exists"):
        write_description(tmp_path, tmp_path / "dataset.json")
