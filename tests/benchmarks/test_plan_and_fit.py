"""The benchmark of planned bundles: all contenders on one plan, and rows that are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import plan_and_fit
from benchmarks.contenders.planned_unet import OneMaskInferer, PlannedUNet, train_for
from medsegdiff.bundle import Bundle


@pytest.mark.parametrize("stem", [[1, 1], [2, 2]])
def test_the_unet_takes_any_size(stem: list[int]) -> None:
    encoder = {"spatial_dims": 2, "channels": [8, 16], "strides": [stem, [2, 2]]}
    network = PlannedUNet(encoder, in_channels=1, num_classes=3).eval()
    assert network(torch.randn(2, 1, 13, 22)).shape == (2, 3, 13, 22)


def test_mirror_images_are_averaged() -> None:
    encoder = {"spatial_dims": 2, "channels": [8, 16], "strides": [[1, 1], [2, 2]]}
    network, image = PlannedUNet(encoder, 1, 2).eval(), torch.randn(1, 16, 16)
    both = OneMaskInferer([16, 16], [0]).ensemble(image, network, "a").mean
    mirrored = OneMaskInferer([16, 16], [0]).ensemble(image.flip(1), network, "a").mean
    torch.testing.assert_close(both, mirrored.flip(1), atol=1e-2, rtol=1e-2)
    volume = OneMaskInferer([16, 16]).ensemble(torch.randn(1, 16, 16, 3), network, "a")
    assert volume.mean.shape == (2, 16, 16, 3) and volume.labels.shape == (1, 16, 16, 3)
    torch.testing.assert_close(volume.mean.sum(dim=0), torch.ones(16, 16, 3))


def test_every_contender_has_its_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small: dict[str, Any] = {"phantom_3d": {"spatial_dims": 3, "cases": 5, "size": 16}}
    monkeypatch.setattr(plan_and_fit, "PHANTOMS", small)
    results = tmp_path / "rows.json"
    words = ["--data", "phantom_3d", "--minutes", "0.01", "--work", str(tmp_path / "work")]
    plan_and_fit.main([*words, "--results", str(results)])
    rows = json.loads(results.read_text())
    assert [row["contender"] for row in rows] == ["medsegdiff", "unet", "unet_mirrored"]
    for row in rows:
        assert row["edits"] == 0 and row["seconds_cpu"] >= 0 and 0.0 <= row["dice"] <= 1.0
    plan_and_fit.main([*words, "--results", str(results)])
    assert json.loads(results.read_text()) == rows
    (planned,) = (tmp_path / "work").glob("*/plan/phantom_3d")
    (data,) = (tmp_path / "work").glob("*/dataset.json")
    changes = {"dataset_dir": str(data.parent), "fold": 0, "tracking_uri": "off"}
    _, steps = train_for(Bundle(planned), {**changes, "device": "$torch.device('cpu')"}, 0.001)
    assert steps >= 1  # though reading the data took all the time that there was
