"""Methods that learn from few labels: what they may see, and what is written of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.few_label import label_counts, labelled_scans, methods
from medsegdiff.bundle.bundle import load_bundle
from medsegdiff.phantoms.cohort import write_cohort


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command that takes seconds."""
    for module in (labelled_scans, methods):
        monkeypatch.setattr(module, "SIZE", (16, 16, 16))
    shipped = load_bundle("hippocampus_label_efficient").root
    few = Path(shutil.copytree(shipped, tmp_path / "few", ignore=shutil.ignore_patterns("runs")))
    path = few / "configs" / "label_efficient.yaml"
    text = path.read_text().replace("views: 40", "views: 2").replace("steps: 500", "steps: 2")
    text = text.replace("[0.05, 0.2, 0.35, 0.5, 0.65, 0.8]", "[0.5]")
    path.write_text(text.replace("window: [40, 56, 40]", "window: [16, 16, 16]"))
    data = write_cohort(tmp_path / "data", cases=6, size=16, classes=2)
    return [
        *("--data", str(data), "--draws", "1", "--seconds", "0.01", "--few", str(few)),
        *("--work", str(tmp_path / "work"), "--output", str(tmp_path / "out")),
    ]


@pytest.mark.long
def test_rows_are_kept_and_written_as_a_page_and_a_plot(words: list[str], tmp_path: Path) -> None:
    chosen = ["unet", "features", "self_trained", "pretrained_diffusion"]
    rows = label_counts.main([*words, "--counts", "1", "--methods", *chosen[:2]])
    assert [row["method"] for row in rows] == chosen[:2]
    rows = label_counts.main([*words, "--counts", "2", "1", "--methods", *chosen])
    assert len(rows) == 8 and len({(r["method"], r["labelled_cases"]) for r in rows}) == 8
    assert all(0.0 <= row["dice"] <= 1.0 and row["training_cpu_seconds"] > 0 for row in rows)
    assert json.loads((tmp_path / "out" / "label_efficient.json").read_text())["rows"] == rows
    assert label_counts.main([*words, "--counts", "1", "2", "--methods", *chosen]) == rows
    page = (tmp_path / "out" / "label_efficient.md").read_text()
    table, _, rest = page.partition("The best of")
    for part in (table, rest.partition("Cost")[2]):
        assert all(part.count(f"| {label_counts.NAMES[m]} |") == 1 for m in chosen)
    assert (tmp_path / "out" / "label_efficient.png").stat().st_size > 5000


def test_every_method_has_a_name_and_a_colour() -> None:
    assert set(label_counts.NAMES) == set(methods.METHODS)
    assert len(label_counts.COLOURS) == len(label_counts.NAMES)


def test_masks_of_other_scans_are_not_handed_on(words: list[str]) -> None:
    options = label_counts.parsed(words)
    training, _ = label_counts.load_manifest(options.data).split(0)
    items = labelled_scans.load_items(training, masks=True)
    scans = {case.id: item for case, item in zip(training, items, strict=True)}
    setting = label_counts.setting_of(training, scans, 2, 0, options)
    assert len(setting.labelled) == 2 and len(setting.others) == len(training) - 2
    assert all("label" not in item for item in setting.others)
    assert all("label" in item for item in setting.labelled)
    other = label_counts.setting_of(training, scans, 2, 1, options)
    assert [c.id for c in setting.cases[0]] != [c.id for c in other.cases[0]]


def test_the_mean_and_the_span_of_the_draws_are_shown() -> None:
    rows = [
        {"method": "unet", "labelled_cases": 5, "draw": n, "dice": dice}
        | {"training_cpu_seconds": 60.0, "marking_cpu_seconds_a_scan": 0.1, "peak_memory_mb": 900}
        for n, dice in enumerate((0.7, 0.8, 0.9))
    ]
    page = "\n".join(label_counts.page({"rows": rows, "command": "x"}))
    assert "| (a) U-Net from scratch | 0.800 (0.700 to 0.900) |" in page
    assert "| (a) U-Net from scratch | 60 | 0.10 | 900 |" in page
    axes = label_counts.plot(rows).axes[0]
    assert np.asarray(axes.get_lines()[0].get_ydata()).tolist() == [pytest.approx(0.8)]
