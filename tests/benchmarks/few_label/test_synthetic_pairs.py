"""Pairs from few labels: made once, of no real mask, measured against real images."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.few_label import labelled_scans, pair_making, pair_measures, synthetic_pairs
from medsegdiff.data.manifest import load_manifest
from medsegdiff.phantoms.cohort import write_cohort


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelled_scans, "SIZE", (16, 16, 16))
    monkeypatch.setattr(pair_making, "CHANNELS", (8, 8))
    monkeypatch.setattr(pair_making, "AGREEMENT", 0.0)  # no time to learn anything


@pytest.mark.usefixtures("small")
def test_pairs_are_made_from_the_labelled_masks_alone_and_only_once(tmp_path: Path) -> None:
    cases = load_manifest(write_cohort(tmp_path / "data", cases=4, size=16, classes=2)).cases
    for case in cases[2:]:
        case.labels[0].unlink()  # masks of the others are not read
    folder = tmp_path / "pairs"

    def make() -> list[str]:
        pairs = pair_making.make_pairs(
            cases[:2], cases[2:], folder, count=3, seed=0, minutes=0.01, pretraining_minutes=0.005
        )
        assert all(pair.labels and pair.images[0].is_file() for pair in pairs)
        return [pair.id for pair in pairs]

    first = make()
    assert len(first) == 3
    assert len(list(tmp_path.glob("images-*.pt"))) == 1
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert make() == first
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    items = labelled_scans.load_items(cases[:2], masks=True)
    real = [item["label"] for item in items]
    for label in sorted(folder.glob("*_label.nii.gz")):
        drawn = torch.as_tensor(labelled_scans.load_items(load_one(label), masks=False)[0]["image"])
        assert all(not torch.equal(drawn > drawn.min(), one > 0) for one in real)


def load_one(path: Path) -> list[labelled_scans.Case]:
    return [labelled_scans.Case("one", (path,), (), "one")]


def test_real_images_are_the_floor_and_copies_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    real, other = (torch.randn(60, 4, generator=generator) for _ in range(2))
    found = pair_measures.measured_fidelity(real, 0.3 * other, other)
    assert found["images_a_side"] == 30
    assert found["real"]["frechet"] < found["drawn"]["frechet"]
    assert found["real"]["recall"] > found["drawn"]["recall"]
    base = torch.randn(1, 1, 48, 48, generator=generator)
    images = base + 0.5 * torch.randn(10, 1, 48, 48, generator=generator)
    new = base + 0.7 * torch.randn(3, 1, 48, 48, generator=generator)
    assert pair_measures.measured_copies(images, new)["copies"] == 0
    assert pair_measures.measured_copies(images, torch.cat([images[:2], new]))["copies"] == 2


@pytest.mark.usefixtures("small")
def test_results_are_kept_and_written_as_a_page(tmp_path: Path) -> None:
    data = write_cohort(tmp_path / "data", cases=5, size=16, classes=2)
    words = ["--data", str(data), "--labelled", "2", "--draws", "1", "--count", "2"]
    words += ["--minutes", "0.005", "--pretraining-minutes", "0.002", "--training-minutes", "0"]
    words += ["--work", str(tmp_path / "work"), "--output", str(tmp_path / "out")]
    result = synthetic_pairs.main(words)
    assert [row["share"] for row in result["usefulness"]] == [0.0, 0.5]
    assert json.loads((tmp_path / "out" / "synthetic_pairs.json").read_text()) == result
    assert synthetic_pairs.main(words)["usefulness"] == result["usefulness"]
    page = (tmp_path / "out" / "synthetic_pairs.md").read_text()
    assert page.count("| 2 | 0 | 0 |") == 2
