"""Volumes cut into planes."""

from pathlib import Path

import torch
from monai.transforms import Compose

from medsegdiff.data.manifest import load_manifest
from medsegdiff.data.planes import cut_into_planes
from medsegdiff.data.transforms import LoadCased
from medsegdiff.phantoms.cohort import write_cohort


def test_every_plane_of_a_volume_is_kept_in_order(tmp_path: Path) -> None:
    manifest = load_manifest(write_cohort(tmp_path, cases=2, raters=3, size=8, stacked=True))
    chain = Compose([LoadCased(2, labels=manifest.labels, raters=3)])
    planes = cut_into_planes(manifest.cases, chain)
    volumes = [chain({"image": list(c.images), "label": list(c.labels)}) for c in manifest.cases]
    assert len(planes) == sum(volume["image"].shape[-1] for volume in volumes)
    first = planes[: volumes[0]["image"].shape[-1]]
    assert [p["case"] for p in first] == [f"phantom_000/{z}" for z in range(len(first))]
    for key, raters in (("image", 1), ("label", 3)):
        stacked = torch.stack([p[key] for p in first], dim=-1)
        assert stacked.shape[0] == raters and torch.equal(stacked, volumes[0][key].as_tensor())
    fewer = cut_into_planes(manifest.cases, chain, every=3)
    assert [p["case"] for p in fewer] == [p["case"] for p in planes[::3]]


def test_a_plane_is_a_plane(tmp_path: Path) -> None:
    manifest = load_manifest(write_cohort(tmp_path, cases=2, spatial_dims=2, size=8))
    planes = cut_into_planes(manifest.cases, Compose([LoadCased(2)]))
    assert [p["case"] for p in planes] == ["phantom_000/0", "phantom_001/0"]
    assert planes[0]["image"].ndim == 3
