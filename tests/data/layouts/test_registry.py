"""A complete description that does not say what its images are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medsegdiff.core.errors import InputError
from medsegdiff.data.fitness import check
from medsegdiff.data.manifest import load_manifest
from tests.data.layouts.files import image, label, save, write_json


def described(folder: Path, ending: str, shape: tuple[int, ...], **more: Any) -> Path:
    """A description of four cases with two readers each."""
    plane = shape[:2] if ending == "png" else shape
    for name in "abcd":
        save(folder / f"{name}.{ending}", image(ord(name), shape))
        for reader in (0, 1):
            save(folder / f"{name}_{reader}.{ending}", label(1, shape=plane))
    training = [
        {"image": f"{n}.{ending}", "label": [f"{n}_0.{ending}", f"{n}_1.{ending}"]} for n in "abcd"
    ]
    labels = {"0": "background", "1": "disc"}
    write_json(folder / "dataset.json", {"labels": labels, "training": training, **more})
    return folder


@pytest.mark.parametrize(
    ("ending", "shape", "dims", "channels"),
    [
        ("png", (12, 10, 3), 2, ("red", "green", "blue")),
        ("nii.gz", (12, 10), 2, ("channel 0",)),
        ("nii.gz", (12, 10, 6), 3, ("channel 0",)),
    ],
)
def test_dimensions_and_channels_are_those_of_the_first_image(
    ending: str, shape: tuple[int, ...], dims: int, channels: tuple[str, ...], tmp_path: Path
) -> None:
    manifest = load_manifest(described(tmp_path, ending, shape))
    assert (manifest.spatial_dims, manifest.channels, manifest.raters) == (dims, channels, 2)
    assert check(manifest).fit


def test_names_of_channels_that_are_given_are_kept(tmp_path: Path) -> None:
    names = {"0": "R", "1": "G", "2": "B"}
    manifest = load_manifest(described(tmp_path, "png", (12, 10, 3), modality=names))
    assert (manifest.spatial_dims, manifest.channels) == (2, ("R", "G", "B"))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_path_that_cannot_be_is_an_image_that_is_missing(name: str, tmp_path: Path) -> None:
    labels = {"0": "background", "1": "disc"}
    training = [{"image": f"{name}.nii", "case": "one"}]
    write_json(tmp_path / "dataset.json", {"labels": labels, "training": training})
    assert load_manifest(tmp_path).spatial_dims == 3
    write_json(
        tmp_path / "dataset.json", {"labels": labels, "training": [{**training[0], "fold": 0}]}
    )
    with pytest.raises(InputError, match="is missing, as are all images"):
        load_manifest(tmp_path)
