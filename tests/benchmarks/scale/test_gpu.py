"""The table of a GPU, made on the processor."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.scale.gpu import agreement, main, peak


@pytest.mark.long
def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--device", "cpu", "--bundles", "lung_nodule_ct", "--compilations", "off"]
    main([*few, "--members", "2", "--rounds", "1", "--output", str(tmp_path)])
    content = json.loads((tmp_path / "gpu.json").read_text())
    exact, rounded = content["rows"]
    assert (exact["precision"], rounded["precision"]) == ("float32", "bfloat16")
    assert exact["dice_with_cpu"] == 1.0  # the same device, precision and noise
    assert 0.5 < rounded["dice_with_cpu"] <= 1.0
    for row in content["rows"]:
        assert row["latency_ms"] > 0 and row["images_per_second"] > 0 and row["gflop"] > 0
        assert row["share_of_peak"] > 0.0 and row["peak_memory_mib"] is None
    page = (tmp_path / "gpu.md").read_text()
    assert page.count("| lung_nodule_ct |") == 2 and content["command"] in page


def test_agreement_is_the_dice_of_all_classes() -> None:
    first = torch.tensor([[0, 1, 1, 2], [0, 0, 0, 0]])
    second = torch.tensor([[0, 1, 2, 2], [0, 0, 0, 1]])
    assert agreement(first, second, 3) == pytest.approx(2 * 2 / (3 + 4))
    assert agreement(first, first, 3) == 1.0
    assert agreement(torch.zeros(2, 2), torch.zeros(2, 2), 3) == 1.0


def test_the_peak_counts_the_operations_of_a_product() -> None:
    assert peak(torch.device("cpu"), "float32", 256) > 1e8
