from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.fitness import check
from medsegdiff.data.manifest import datalist, load_manifest
from medsegdiff.data.predictions import read_reference
from medsegdiff.data.transforms import LoadCased
from medsegdiff.data.written_description import write_description
from tests.data.layouts.files import image, label, save, write_json


def photographs(folder: Path, **more: Any) -> Path:
    for seed, name in enumerate("ab"):
        save(folder / "images" / f"{name}.png", image(seed, (6, 5)))
        save(folder / "masks" / f"{name}.png", label(1, shape=(6, 5)))
    write_json(folder / "dataset.json", {"labels": {"0": "background", "1": "x"}, **more})
    return folder


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        (0.5, [(0.5, 0.5), (0.5, 0.5)]),
        ([0.5, 0.25], [(0.5, 0.25), (0.5, 0.25)]),
        ({"a": 0.5, "b": [0.2, 0.1]}, [(0.5, 0.5), (0.2, 0.1)]),
        ({"b": 2}, [(), (2.0, 2.0)]),
        ("sizes.csv", [(0.3, 0.3), (0.4, 0.4)]),
        ("axes.csv", [(0.3, 0.2), (0.4, 0.5)]),
    ],
)
def test_every_form(tmp_path: Path, spacing: Any, expected: list[tuple[float, ...]]) -> None:
    (tmp_path / "sizes.csv").write_text("case,pixel size (mm)\na,0.3\nb, 0.4\n")
    (tmp_path / "axes.csv").write_text("a,0.3,0.2\nb,0.4,0.5\n")
    manifest = load_manifest(photographs(tmp_path, spacing=spacing))
    assert [case.spacing for case in manifest.cases] == expected
    loader = LoadCased(spatial_dims=2, channels=1, manifest=manifest)
    for case, item, size in zip(manifest.cases, datalist(manifest.cases), expected, strict=True):
        loaded = loader(item)
        assert loaded["geometry"].unit == ("mm" if size else "pixel")
        assert loaded["geometry"].spacing == pytest.approx(size or (1.0, 1.0))
        assert loaded["label"].pixdim[:2].tolist() == pytest.approx(list(size or (1.0, 1.0)))
        _, geometry = read_reference(case, manifest)
        assert geometry.spacing == pytest.approx(size or (1.0, 1.0))
    write_description(tmp_path, tmp_path / "further" / "written.json")
    again = load_manifest(tmp_path / "further" / "written.json")
    assert [case.spacing for case in again.cases] == expected


@pytest.mark.parametrize(
    "spacing", [0, -1, "missing.csv", [1, 2, 3], {"c": 1}, {"a": "x"}, True, [0.1, "1"]]
)
def test_what_is_no_size_is_refused(tmp_path: Path, spacing: Any) -> None:
    with pytest.raises(InputError, match="spacing"):
        load_manifest(photographs(tmp_path, spacing=spacing))


def test_a_volume_says_its_own(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.nii.gz", image(0))
    save(tmp_path / "masks" / "a.nii.gz", label(1))
    described = {"labels": {"0": "background", "1": "x"}, "spacing": 3}
    write_json(tmp_path / "dataset.json", described)
    manifest = load_manifest(tmp_path)
    (item,) = datalist(manifest.cases)
    assert LoadCased(manifest=manifest)(item)["geometry"].spacing == (1.0, 1.0, 1.0)


def test_check_says_pixels_where_the_size_is_not_known(tmp_path: Path) -> None:
    facts = check(photographs(tmp_path)).facts
    assert facts["unit"].startswith("pixels") and "spacing_mm" not in facts
    manifest = load_manifest(tmp_path)
    known = replace(manifest, cases=tuple(replace(c, spacing=(0.5, 0.5)) for c in manifest.cases))
    facts = check(known).facts
    assert "unit" not in facts and facts["spacing_mm"]["median"] == [0.5, 0.5]
