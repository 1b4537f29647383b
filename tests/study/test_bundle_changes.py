"""The bundles of a study have the locators of their networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from medsegdiff.bundle.bundle import Bundle
from medsegdiff.study.bundle_changes import write_joined, write_single


@pytest.mark.parametrize("folds", [1, 2])
def test_locators_are_joined(folds: int, untrained: Bundle, tmp_path: Path) -> None:
    singles = []
    for number in range(folds):
        run, single = tmp_path / f"fold{number}", Bundle(tmp_path / f"single{number}" / "hippo")
        run.mkdir()
        torch.save({"w": torch.tensor(float(number))}, run / "final.pt")
        torch.save([{"w": torch.tensor(float(number))}], run / "locator.pt")
        write_single(untrained, run / "final.pt", {}, single)
        singles.append(single)
    joined = Bundle(tmp_path / "joined" / "hippo")
    write_joined(untrained, singles, {}, joined)
    weights = torch.load(joined.locator, weights_only=True)
    assert [float(one["w"]) for one in weights] == [float(number) for number in range(folds)]


def test_a_locator_is_part_of_the_weights(untrained: Bundle, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "final.pt")
    bundle = Bundle(tmp_path / "one" / "hippo")
    write_single(untrained, tmp_path / "final.pt", {}, bundle)
    before = bundle.weights_hash(), bundle.fingerprint()
    torch.save([{}], bundle.locator)
    after = bundle.weights_hash(), bundle.fingerprint()
    assert before[0] != after[0] and before[1] != after[1]
